"""Multi-head attention inside each sequence of a packed or padded batch: softmax(scale q k^T), dropout, times v.

Operands of what follows: qkv [N, 3, H, D] alone, or queries q [n, H, D] in its place with kv [N, 2, H, D] and
query_offsets.
"""

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import attention_reference as plain
from memofast.ops import backends, faults, library, philox
from memofast.ops.attention_reference import MAX_POSITION, Dropout

BACKENDS = ("reference", "cpu", "cuda", "torch", "triton")
_KERNELS = ("cpu", "cuda")
_CUDA_WIDTHS = (32, 64, 96, 128)  # of a head
_WIDEST_IN_TRITON = 128
_NOT_CAUSAL = ("cuda", "triton")


def _run(kernel, results, operands, site, p, scale, longest, backend, causal) -> None:
    numbers = (
        site,
        philox.drop_threshold(p),
        philox.keep_scale(p),
        scale,
        longest,
        causal,
        backend == "cuda",
        library.stream(operands[0]),
    )
    status = kernel(operands, *results, *numbers)
    if status:
        own = operands[1] is None
        name, tensors = ("attention", (operands[0], *operands[3:])) if own else ("cross_attention", operands)
        faults.check_status(name, status, tensors)


def _forward(
    qkv, kv, query_offsets, offsets, lengths, rng, sample_keys, site, p, scale, backend, longest=0, causal=False
) -> tuple[Tensor, Tensor]:
    """[queries, H, D] and the log-sum-exp [queries, H] fp32."""
    *rows, heads, width = qkv.shape
    if backend in _KERNELS:
        out = torch.empty((rows[0], heads, width), dtype=qkv.dtype, device=qkv.device)
        lse = torch.empty((rows[0], heads), dtype=torch.float32, device=qkv.device)
        operands = (qkv, kv, query_offsets, offsets, lengths, rng, sample_keys)
        _run(_C.attention, (out, lse), operands, site, p, scale, longest, backend, causal)
        return out, lse
    operands = (qkv, kv, query_offsets, offsets, lengths)
    if backend == "triton":
        from memofast.kernels import attention as kernels

        return kernels.forward(*operands, rng, sample_keys, site, p, scale)
    forward = {"reference": plain.reference_forward, "torch": plain.padded_forward}[backend]
    lse = qkv.new_zeros((rows[0], heads), dtype=torch.float32)  # those two compute probabilities anew
    return forward(*operands, Dropout(rng, sample_keys, site, p), scale, causal), lse


def _backward(
    grad,
    out,
    lse,
    qkv,
    kv,
    query_offsets,
    offsets,
    lengths,
    rng,
    keys,
    site,
    p,
    scale,
    backend,
    longest=0,
    causal=False,
) -> list[Tensor]:
    """The gradient of qkv, or those of q and kv."""
    if backend in _KERNELS:
        operands = (qkv, kv, query_offsets, offsets, lengths, rng, keys)
        grads = [library.output_like(qkv)] if kv is None else [library.output_like(qkv), library.output_like(kv)]
        results = (grad, out, lse, grads[0], None if kv is None else grads[1])
        _run(_C.attention_backward, results, operands, site, p, scale, longest, backend, causal)
        return grads
    operands = (qkv, kv, query_offsets, offsets, lengths)
    if backend == "triton":
        from memofast.kernels import attention as kernels

        return kernels.backward(grad, lse, *operands, rng, keys, site, p, scale)
    backward = {"reference": plain.reference_backward, "torch": plain.padded_backward}[backend]
    return backward(grad, *operands, Dropout(rng, keys, site, p), scale, causal)


_OPTIONS = (
    "Tensor offsets, Tensor? lengths, Tensor? rng, Tensor? sample_keys, int site, float p, float scale, str backend, "
    "int longest=0, bool causal=False"
)


def _refuse(named: dict) -> None:
    rows = named["qkv"] if "qkv" in named else named["q"]
    plain.spans(rows, named.get("kv"), named.get("query_offsets"), named["offsets"], named["lengths"])


def _check(
    qkv, kv, query_offsets, offsets, lengths, rng, sample_keys, site, p, scale, backend, longest=0, causal=False
) -> None:
    name, keys = ("attention", qkv) if kv is None else ("cross_attention", kv)
    library.require_tensor(name, "qkv" if kv is None else "kv", keys)
    device = keys.device

    def check(argument: str, tensor: Tensor, shape: tuple, dtype) -> None:
        library.check_tensor(name, argument, tensor, shape=shape, dtype=dtype, device=device)

    rows, layout, parts = ("qkv", "[N, 3, H, D]", 3) if kv is None else ("kv", "[N, 2, H, D]", 2)
    check(rows, keys, (None, parts, None, None), library.row_types(keys, backend == "reference"))
    heads, width = keys.shape[2:]
    if width % 8 or not width or not heads:
        raise ValueError(
            f"{name}: {rows} {layout} needs at least one head and D a multiple of 8, got {list(keys.shape)}"
        )
    check("offsets", offsets, (None,), torch.int32)
    if not offsets.shape[0]:
        raise ValueError(f"{name}: offsets must have shape [B + 1], got [0]")
    samples = offsets.shape[0] - 1
    if kv is not None:
        check("q", qkv, (None, heads, width), kv.dtype)
        check("query_offsets", query_offsets, (samples + 1,), torch.int32)
    if lengths is not None:
        check("lengths", lengths, (samples,), torch.int32)
    library.check_number(name, "scale", scale)
    library.check_site(name, site)
    library.check_count(name, "longest", longest)
    library.refuse_tangents(name, qkv, kv)
    if causal and backend in _NOT_CAUSAL:
        raise ValueError(f"{name}: backend {backend} has no causal kernel; use torch")
    philox.drop_threshold(p)
    if p > 0:
        if rng is None or sample_keys is None:
            raise ValueError(f"{name}: dropout (p > 0) needs rng and sample_keys")
        if heads >= MAX_POSITION:
            raise ValueError(f"{name}: dropout allows at most 65535 heads, got {heads}")
        check("rng", rng, (2,), torch.int64)
        check("sample_keys", sample_keys, (samples,), torch.int64)


def _check_backward(grad, out, lse, *others) -> None:
    _check(*others)
    (rows, *_, heads, width), like = others[0].shape, {"dtype": others[0].dtype, "device": others[0].device}
    name = "attention_backward" if others[1] is None else "cross_attention_backward"
    library.check_tensor(name, "grad", grad, shape=(rows, heads, width), **like)
    library.check_tensor(name, "out", out, shape=(rows, heads, width), **like)
    like["dtype"] = torch.float32
    library.check_tensor(name, "lse", lse, shape=(rows, heads), **like)


def _no_output(qkv: Tensor, *_) -> tuple[Tensor, Tensor]:
    rows, heads, width = qkv.shape[0], *qkv.shape[-2:]
    return qkv.new_empty(rows, heads, width), qkv.new_empty(rows, heads, dtype=torch.float32)


_attention = library.define(
    f"attention(Tensor qkv, {_OPTIONS}) -> (Tensor, Tensor)",
    lambda qkv, *others: _forward(qkv, None, None, *others),
    _no_output,
    BACKENDS,
    lambda qkv, *others: _check(qkv, None, None, *others),
    refuse=_refuse,
)
_attention_backward = library.define(
    f"attention_backward(Tensor grad, Tensor out, Tensor lse, Tensor qkv, {_OPTIONS}) -> Tensor",
    lambda grad, out, lse, qkv, *others: _backward(grad, out, lse, qkv, None, None, *others)[0],
    lambda grad, out, lse, qkv, *_: torch.empty_like(qkv),
    BACKENDS,
    lambda grad, out, lse, qkv, *others: _check_backward(grad, out, lse, qkv, None, None, *others),
    refuse=_refuse,
)
_cross_attention = library.define(
    f"cross_attention(Tensor q, Tensor kv, Tensor query_offsets, {_OPTIONS}) -> (Tensor, Tensor)",
    _forward,
    _no_output,
    BACKENDS,
    _check,
    refuse=_refuse,
)
_cross_attention_backward = library.define(
    "cross_attention_backward(Tensor grad, Tensor out, Tensor lse, Tensor q, Tensor kv, Tensor query_offsets, "
    f"{_OPTIONS}) -> (Tensor, Tensor)",
    lambda *arguments: tuple(_backward(*arguments)),
    lambda grad, out, lse, q, kv, *_: (torch.empty_like(q), torch.empty_like(kv)),
    BACKENDS,
    _check_backward,
    refuse=_refuse,
)


def _dispatched(qkv, kv, query_offsets, *others) -> tuple[Tensor, Tensor]:
    return _attention(qkv, *others) if kv is None else _cross_attention(qkv, kv, query_offsets, *others)


def _dispatched_backward(grad, out, lse, qkv, kv, query_offsets, *others) -> list[Tensor]:
    if kv is None:
        return [_attention_backward(grad, out, lse, qkv, *others)]
    return list(_cross_attention_backward(grad, out, lse, qkv, kv, query_offsets, *others))


class _Attention(torch.autograd.Function):
    """`at_once`: see `library.calls_at_once`."""

    @staticmethod
    def forward(ctx, at_once, options, *operands):
        out, lse = (_forward if at_once else _dispatched)(*operands, *options)
        ctx.save_for_backward(out, lse, *operands)
        ctx.options = at_once, options
        return out

    @staticmethod
    def backward(ctx, grad):
        at_once, options = ctx.options
        backward = _backward if at_once and library.records_nothing() else _dispatched_backward
        grads = backward(grad.contiguous(), *ctx.saved_tensors, *options)
        return None, None, *grads, *[None] * (7 - len(grads))


def attention(
    qkv: Tensor,
    offsets: Tensor,
    *,
    lengths: Tensor | None = None,
    p: float = 0.0,
    scale: float | None = None,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    site: int = 0,
    longest: int = 0,
    causal: bool = False,
    backend: str = "auto",
) -> Tensor:
    """softmax(scale q k^T) with dropout, times v, in every head of every sequence on its own.

    Args:
        qkv: [N, 3, H, D] fp32 or bf16 (fp16 on GPUs; fp64 with backend reference), D a multiple of 8.
        offsets: [B+1] int32, first row of every sequence, ending within N; offsets[0] = 0.
        lengths: [B] int32, rows used of each sequence, at most offsets[b+1] - offsets[b]; None: all of them. A padded
        batch of
            B x S rows has offsets = arange(0, B*S + 1, S).
        p: dropout probability of the softmax; see `attention_keep_mask`, `philox.keep_scale`.
        scale: None stands for D ** -0.5.
        rng: [2] int64, run seed and update number; sample_keys [B] int64; site: `philox.site`. Needed where p > 0.
        longest: no sequence is longer than this, if the caller knows; 0: unknown. Backend cuda then shares out its
        memory better.
        causal: a row sees none after it. Backends reference, cpu and torch.
        backend: auto, reference, cpu, cuda (D 32, 64, 96 or 128; sm_80 or newer), triton (D at most 128), or torch
        (plain PyTorch, any device; waits for the device to learn the longest length).
    Returns: [N, H, D], zero in rows of no sequence; so is the gradient.
    Raises: ValueError for a wrong shape, type, device or stride, offsets or lengths out of range, or an unknown
        backend.
    Notes: softmax and sums in fp32; two runs are bitwise equal for any number of threads; a sequence's result does not
    depend on the rest of the batch.
    """
    return _attend((qkv, None, None, offsets, lengths, rng, sample_keys), site, p, scale, longest, causal, backend)


def cross_attention(
    q: Tensor,
    kv: Tensor,
    query_offsets: Tensor,
    offsets: Tensor,
    *,
    lengths: Tensor | None = None,
    p: float = 0.0,
    scale: float | None = None,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    site: int = 0,
    longest: int = 0,
    causal: bool = False,
    backend: str = "auto",
) -> Tensor:
    """`attention` of queries that have rows of their own: any number for the keys of each sequence.

    Args:
        q: [n, H, D], of the type of kv.
        kv: [N, 2, H, D], keys and values.
        query_offsets: [B+1] int32, first query of every sequence, ending within n; query_offsets[0] = 0.
        offsets, lengths: as in `attention`, of the rows of kv.
        longest: no sequence of queries or keys is longer than this; the rest as in `attention`.
        causal: a query sees no key that lies more rows ahead of it than the sequence's numbers of queries and keys
            differ by: query i sees key j where j <= i + |n_b - N_b|.
    Returns: [n, H, D], zero in rows of no sequence and for queries without a key; so is the gradient.
    Notes: dropout's positions count from the first query of the sequence. With q and kv of the same rows this is
    `attention`, to the bit.
    """
    if not isinstance(kv, Tensor):
        library.require_tensor("cross_attention", "kv", kv)
    return _attend((q, kv, query_offsets, offsets, lengths, rng, sample_keys), site, p, scale, longest, causal, backend)


def _attend(
    operands: tuple, site: int, p: float, scale: float | None, longest: int, causal: bool, backend: str
) -> Tensor:
    qkv, kv = operands[:2]
    name = "attention" if kv is None else "cross_attention"
    if not isinstance(qkv, Tensor) or qkv.dim() < 3:
        argument, dimensions = ("qkv", 4) if kv is None else ("q", 3)
        library.check_tensor(name, argument, qkv, shape=(None,) * dimensions)
    if type(p) is not float:
        p = library.as_number(name, "p", p)
    automatic = automatic_backend(qkv)
    if causal and automatic in _NOT_CAUSAL:
        automatic = "torch"
    backend = library.resolve(name, backend, automatic, BACKENDS)
    if backend != automatic:
        library.require_device(name, backend, qkv)
    at_once = backend in _KERNELS and library.calls_at_once() and _C.attention_fits(operands, p > 0, backend == "cuda")
    at_once = at_once and not (causal and backend == "cuda")  # which is refused below
    if not at_once:
        _check(*operands, site, p, 1.0 if scale is None else scale, backend, longest, causal)
    scale = qkv.shape[-1] ** -0.5 if scale is None else library.as_number(name, "scale", scale)
    options = (site, p, scale, backend, longest, causal)
    if torch.is_grad_enabled() and (qkv.requires_grad or (kv is not None and kv.requires_grad)):
        return _Attention.apply(at_once, options, *operands)
    return (_forward if at_once else _dispatched)(*operands, *options)[0]


def automatic_backend(qkv: Tensor) -> str:
    """What `auto` means for this type, device and head width; all but `torch` can be captured in CUDA graphs."""
    if qkv.is_cpu or qkv.shape[-1] in _CUDA_WIDTHS:
        return backends.automatic("attention", qkv)
    return backends.automatic("attention", qkv, ("cuda",) if qkv.shape[-1] <= _WIDEST_IN_TRITON else ("cuda", "triton"))

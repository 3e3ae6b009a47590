"""Multi-head attention inside each sequence of a packed or padded batch: softmax(scale q k^T), dropout, times v."""

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import backends, faults, library, philox

BACKENDS = ("reference", "cpu", "cuda", "torch", "triton")
_KERNELS = ("cpu", "cuda")
_CUDA_WIDTHS = (32, 64, 96, 128)  # of a head
_WIDEST_IN_TRITON = 128
_MAX_POSITION = 1 << 16  # a dropout position is head << 16 | query


def attention_keep_mask(rng: Tensor, site: int, sample_keys: Tensor, heads: int, length: int, p: float) -> Tensor:
    """Which probabilities attention dropout keeps.

    Layout: position = head << 16 | query, block = key // 8, lane = key % 8; query and key count from the sequence's start.
    Returns: [B, heads, length, length] bool (sample, head, query, key).
    """
    device = sample_keys.device
    query = torch.arange(length, device=device)
    position = (torch.arange(heads, device=device)[:, None] << 16) | query
    blocks = torch.arange((length + 7) // 8, device=device)
    key = philox.stream_key(rng, philox.Purpose.ATTENTION_DROPOUT, site)
    words = philox.draw(key, sample_keys[:, None, None, None], position[None, :, :, None], blocks)
    return philox.lanes16(words).flatten(-2)[..., :length] >= philox.drop_threshold(p)


def attention_reference(
    qkv: Tensor,
    offsets: Tensor,
    *,
    lengths: Tensor | None = None,
    p: float = 0.0,
    scale: float | None = None,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    site: int = 0,
) -> Tensor:
    """The specification of `attention`, one sequence after the other; differentiable, any floating type."""
    rows, _, heads, width = qkv.shape
    scale = width**-0.5 if scale is None else scale
    out = qkv.new_zeros(rows, heads, width)
    for b, (start, length) in enumerate(_spans(offsets, lengths, rows)):
        q, k, v = qkv[start : start + length].permute(1, 2, 0, 3)
        probability = torch.softmax(scale * (q @ k.mT), dim=-1)
        if p > 0:
            keep = attention_keep_mask(rng, site, sample_keys[b : b + 1], heads, length, p)[0]
            probability = probability * keep * philox.keep_scale(p)
        out[start : start + length] = (probability @ v).transpose(0, 1)
    return out


def _spans(offsets: Tensor, lengths: Tensor | None, rows: int) -> list[tuple[int, int]]:
    """First row and length of every sequence, checked. Waits for the device."""
    spans = library.spans("attention", offsets, rows, lengths)
    if max((length for _, length in spans), default=0) >= _MAX_POSITION:
        faults.check_status("attention", -5)
    return spans


class _Padded:
    """A packed batch laid out as [B, S] for plain PyTorch: which row each cell reads, and which cells are real."""

    def __init__(self, offsets: Tensor, lengths: Tensor | None, rows: int):
        used = [length for _, length in _spans(offsets, lengths, rows)]
        self.longest = max(used, default=0)
        cell = torch.arange(self.longest, device=offsets.device)
        self.real = cell < torch.tensor(used, device=offsets.device, dtype=torch.int64)[:, None]
        self.row = offsets[:-1, None].to(torch.int64) + cell
        self.rows = rows

    def spread(self, packed: Tensor) -> Tensor:
        """[rows, ...] to [B, S, ...]; padding reads zero."""
        cells = packed[self.row.clamp(max=max(self.rows - 1, 0))]
        return cells.masked_fill_(~self.real.reshape(*self.real.shape, *[1] * (packed.dim() - 1)), 0)

    def collect(self, cells: Tensor) -> Tensor:
        """[B, S, ...] back to [rows, ...]; rows of no sequence are zero."""
        packed = cells.new_zeros(self.rows, *cells.shape[2:])
        packed[self.row[self.real]] = cells[self.real]
        return packed


def _torch_forward(qkv, offsets, lengths, rng, sample_keys, site, p, scale) -> Tensor:
    layout = _Padded(offsets, lengths, qkv.shape[0])
    q, k, v = layout.spread(qkv).permute(2, 0, 3, 1, 4)
    if p == 0:
        mask = layout.real[:, None, None, :] | ~layout.real[:, None, :, None]
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        keep = attention_keep_mask(rng, site, sample_keys, q.shape[1], layout.longest, p)
        out = (_probability(q, k, layout, scale) * keep * philox.keep_scale(p)).to(v.dtype) @ v
    return layout.collect(out.transpose(1, 2))


def _probability(q: Tensor, k: Tensor, layout: _Padded, scale: float) -> Tensor:
    """softmax(scale q k^T) over real keys in fp32: [B, H, S, S]."""
    scores = (q @ k.mT).float().mul_(scale)
    return scores.masked_fill_(~layout.real[:, None, None, :], torch.finfo(torch.float32).min).softmax(-1)


def _torch_backward(grad, qkv, offsets, lengths, rng, sample_keys, site, p, scale) -> Tensor:
    layout = _Padded(offsets, lengths, qkv.shape[0])
    q, k, v = layout.spread(qkv).permute(2, 0, 3, 1, 4)
    keep = attention_keep_mask(rng, site, sample_keys, q.shape[1], layout.longest, p) if p > 0 else None
    grads = _gradients(layout.spread(grad).transpose(1, 2), q, k, v, _probability(q, k, layout, scale), keep, p, scale)
    return layout.collect(grads.permute(1, 3, 0, 2, 4))


def _gradients(grad, q, k, v, probability, keep, p, scale) -> Tensor:
    """Gradients of q, k and v, stacked: [3, ..., S, D], from probabilities [..., S, S]."""
    dropped, grad_probability = probability, (grad @ v.mT).to(probability.dtype)
    if keep is not None:
        factors = keep * philox.keep_scale(p)
        dropped, grad_probability = probability * factors, grad_probability * factors
    shift = (probability * grad_probability).sum(-1, keepdim=True)
    grad_scores = (probability * (grad_probability - shift) * scale).to(q.dtype)
    return torch.stack((grad_scores @ k, grad_scores.mT @ q, dropped.to(q.dtype).mT @ grad))


def _reference_backward(grad, qkv, offsets, lengths, rng, sample_keys, site, p, scale) -> Tensor:
    grads = torch.zeros_like(qkv)
    for b, (start, length) in enumerate(_spans(offsets, lengths, qkv.shape[0])):
        q, k, v = qkv[start : start + length].permute(1, 2, 0, 3)
        keep = attention_keep_mask(rng, site, sample_keys[b : b + 1], q.shape[0], length, p)[0] if p > 0 else None
        probability = torch.softmax(scale * (q @ k.mT), dim=-1)
        mine = grad[start : start + length].transpose(0, 1)
        grads[start : start + length] = _gradients(mine, q, k, v, probability, keep, p, scale).permute(2, 0, 1, 3)
    return grads


def _run(kernel, results, qkv, offsets, lengths, rng, sample_keys, site, p, scale, longest, backend) -> None:
    numbers = (
        site,
        philox.drop_threshold(p),
        philox.keep_scale(p),
        scale,
        longest,
        backend == "cuda",
        library.stream(qkv),
    )
    tensors = (qkv, offsets, lengths, rng, sample_keys)
    faults.check_status("attention", kernel(tensors, *results, *numbers), tensors)


def _forward(qkv, offsets, lengths, rng, sample_keys, site, p, scale, backend, longest=0) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        from memofast.kernels import attention as kernels

        return kernels.forward(qkv, offsets, lengths, rng, sample_keys, site, p, scale)
    rows, _, heads, width = qkv.shape
    if backend in _KERNELS:
        out = torch.empty((rows, heads, width), dtype=qkv.dtype, device=qkv.device)
        lse = torch.empty((rows, heads), dtype=torch.float32, device=qkv.device)
        operands = (qkv, offsets, lengths, rng, sample_keys)
        _run(_C.attention, (out, lse), *operands, site, p, scale, longest, backend)
        return out, lse
    lse = qkv.new_zeros((rows, heads), dtype=torch.float32)  # the other backends compute probabilities anew
    if backend == "torch":
        return _torch_forward(qkv, offsets, lengths, rng, sample_keys, site, p, scale), lse
    options = {"lengths": lengths, "p": p, "scale": scale, "rng": rng, "sample_keys": sample_keys, "site": site}
    return attention_reference(qkv, offsets, **options), lse


def _backward(grad, qkv, out, lse, offsets, lengths, rng, sample_keys, site, p, scale, backend, longest=0) -> Tensor:
    if backend == "triton":
        from memofast.kernels import attention as kernels

        return kernels.backward(grad, qkv, lse, offsets, lengths, rng, sample_keys, site, p, scale)
    if backend in _KERNELS:
        grad_qkv = library.output_like(qkv)
        operands = (qkv, offsets, lengths, rng, sample_keys)
        _run(_C.attention_backward, (grad, out, lse, grad_qkv), *operands, site, p, scale, longest, backend)
        return grad_qkv
    backward = {"reference": _reference_backward, "torch": _torch_backward}[backend]
    return backward(grad, qkv, offsets, lengths, rng, sample_keys, site, p, scale)


_OPTIONS = (
    "Tensor offsets, Tensor? lengths, Tensor? rng, Tensor? sample_keys, int site, float p, float scale, str backend, "
    "int longest=0"
)


def _refuse(named: dict) -> None:
    _spans(named["offsets"], named["lengths"], named["qkv"].shape[0])


_attention = library.define(
    f"attention(Tensor qkv, {_OPTIONS}) -> (Tensor, Tensor)",
    _forward,
    lambda qkv, *_: (
        torch.empty_like(qkv[:, 0], memory_format=torch.contiguous_format),
        qkv.new_empty(qkv.shape[0], qkv.shape[2], dtype=torch.float32),
    ),
    refuse=_refuse,
)
_attention_backward = library.define(
    f"attention_backward(Tensor grad, Tensor qkv, Tensor out, Tensor lse, {_OPTIONS}) -> Tensor",
    _backward,
    lambda grad, qkv, *_: torch.empty_like(qkv),
    refuse=_refuse,
)


class _Attention(torch.autograd.Function):
    """`at_once`: see `library.calls_at_once`."""

    @staticmethod
    def forward(ctx, at_once, options, qkv, *others):
        out, lse = (_forward if at_once else _attention)(qkv, *others, *options)
        ctx.save_for_backward(qkv, out, lse, *others)
        ctx.options = at_once, options
        return out

    @staticmethod
    def backward(ctx, grad):
        at_once, options = ctx.options
        backward = _backward if at_once and library.records_nothing() else _attention_backward
        return None, None, backward(grad.contiguous(), *ctx.saved_tensors, *options), None, None, None, None


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
    backend: str = "auto",
) -> Tensor:
    """softmax(scale q k^T) with dropout, times v, in every head of every sequence on its own.

    Args:
        qkv: [N, 3, H, D] fp32 or bf16 (fp16 on GPUs; fp64 with backend reference), D a multiple of 8.
        offsets: [B+1] int32, first row of every sequence, ending within N; offsets[0] = 0.
        lengths: [B] int32, rows used of each sequence, at most offsets[b+1] - offsets[b]; None: all of them. A padded batch of
            B x S rows has offsets = arange(0, B*S + 1, S).
        p: dropout probability of the softmax; see `attention_keep_mask`, `philox.keep_scale`.
        scale: None stands for D ** -0.5.
        rng: [2] int64, run seed and update number; sample_keys [B] int64; site: `philox.site`. Needed where p > 0.
        longest: no sequence is longer than this, if the caller knows; 0: unknown. Backend cuda then shares out its memory better.
        backend: auto, reference, cpu, cuda (D 32, 64, 96 or 128; sm_80 or newer), triton (D at most 128), or torch (plain PyTorch, any
            device; waits for the device to learn the longest length).
    Returns: [N, H, D], zero in rows of no sequence; so is the gradient.
    Raises: ValueError for a wrong shape, type, device or stride, offsets or lengths out of range, or an unknown backend.
    Notes: softmax and sums in fp32; two runs are bitwise equal for any number of threads; a sequence's result does not depend on
        the rest of the batch.
    """
    automatic = automatic_backend(qkv)
    backend = library.resolve("attention", backend, automatic, BACKENDS)
    if backend != automatic:
        library.require_device("attention", backend, qkv)
    tensors = (qkv, offsets, lengths, rng, sample_keys)
    at_once = backend in _KERNELS and library.calls_at_once() and _C.attention_fits(tensors, p > 0, backend == "cuda")
    if not at_once:
        _check(qkv, offsets, lengths, p, rng, sample_keys, backend)
    scale = qkv.shape[-1] ** -0.5 if scale is None else float(scale)
    options = (site, float(p), scale, backend, longest)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return _Attention.apply(at_once, options, *tensors)
    return (_forward if at_once else _attention)(*tensors, *options)[0]


def automatic_backend(qkv: Tensor) -> str:
    """What `auto` means for this type, device and head width; all but `torch` can be captured in CUDA graphs."""
    if qkv.is_cpu or qkv.shape[-1] in _CUDA_WIDTHS:
        return backends.automatic("attention", qkv)
    return backends.automatic("attention", qkv, ("cuda",) if qkv.shape[-1] <= _WIDEST_IN_TRITON else ("cuda", "triton"))


def _check(qkv, offsets, lengths, p, rng, sample_keys, backend) -> None:
    types = library.row_types(qkv, backend == "reference")
    library.check_tensor("attention", "qkv", qkv, shape=(None, 3, None, None), dtype=types)
    if qkv.shape[3] % 8 or not qkv.shape[3] or not qkv.shape[2]:
        raise ValueError(
            f"attention: qkv [N, 3, H, D] needs at least one head and D a multiple of 8, got {list(qkv.shape)}"
        )
    library.check_tensor("attention", "offsets", offsets, shape=(None,), dtype=torch.int32, device=qkv.device)
    if not offsets.shape[0]:
        raise ValueError("attention: offsets must have shape [B + 1], got [0]")
    samples = offsets.shape[0] - 1
    if lengths is not None:
        library.check_tensor("attention", "lengths", lengths, shape=(samples,), dtype=torch.int32, device=qkv.device)
    philox.drop_threshold(p)
    if p > 0:
        if rng is None or sample_keys is None:
            raise ValueError("attention: dropout (p > 0) needs rng and sample_keys")
        if qkv.shape[2] >= _MAX_POSITION:
            raise ValueError(f"attention: dropout allows at most 65535 heads, got {qkv.shape[2]}")
        library.check_tensor("attention", "rng", rng, shape=(2,), dtype=torch.int64, device=qkv.device)
        library.check_tensor(
            "attention", "sample_keys", sample_keys, shape=(samples,), dtype=torch.int64, device=qkv.device
        )

"""Multimodal embeddings: words and projected features to packed rows, each sample as text, visual, speech.

Source of the formulas: MEmoBERT's embeddings, LN(word + position + type) and LN(LN(projection) + position + type), then
dropout.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import backends, faults, library, philox
from memofast.ops.embed_operands import (
    ADDED,
    COUNT,
    FLOATING,
    POSITIONS,
    SPEECH,
    TABLES,
    TYPES,
    VISUAL,
    FeatureRows,
    Operands,
    TextRows,
    check,
    gradients_of,
    operands_of,
    output_type,
    refuse_bad_indices,
    refuse_further,
    refuse_no_rows,
    sum_rows,
    sum_type,
    takes_further,
    total_rows,
)
from memofast.ops.embed_reference import embed_reference, embed_reference_backward

BACKENDS = ("reference", "cpu", "cuda", "triton")
_WIDEST_ON_GPU = 1024
_KERNEL_TYPES = {
    "cpu": {dtype: code for dtype, code in library.TYPE_CODES.items() if dtype is not torch.float16},
    "cuda": library.TYPE_CODES,
}


def _forward(*arguments) -> tuple[Tensor, Tensor]:
    tensors, (rows, p, eps, site, dtype, backend) = arguments[:COUNT], arguments[COUNT:]
    types = tensors[TYPES]
    library.check_count("embed", "rows", rows)
    refuse_further(tensors, backend)
    if backend == "reference":
        operands = operands_of(tensors)
        refuse_bad_indices(operands, rows)
        text, types, offsets, visual, speech, rng, sample_keys = operands
        options = {"rows": rows, "p": p, "eps": eps, "rng": rng, "sample_keys": sample_keys, "site": site}
        out = embed_reference(text, types, offsets, visual=visual, speech=speech, dtype=dtype, **options)
        return out, types.new_empty((0, 4), dtype=torch.float32)
    if backend == "triton":
        from memofast.kernels import embed as kernels

        return kernels.forward(tensors, rows, p, eps, site, dtype)
    out = torch.empty((rows, types.shape[1]), dtype=dtype, device=types.device)
    statistics = torch.empty((rows, 4), dtype=torch.float32, device=types.device)
    _run(_C.embed, tensors, (out, statistics), rows, p, (eps,), site, backend)
    return out, statistics


def _backward(grad: Tensor, statistics: Tensor, *arguments) -> tuple[Tensor | None, ...]:
    """Gradients of the word table and the projected rows, what is summed over rows, and the gradient of `added` (None:
    there is none)."""
    tensors, (rows, p, eps, site, dtype, backend) = arguments[:COUNT], arguments[COUNT:]
    if grad.shape[0] != rows:
        raise ValueError(f"embed_backward: grad must have {rows} rows, got {list(grad.shape)}")
    refuse_further(tensors, backend)
    if backend == "reference":
        return embed_reference_backward(grad, operands_of(tensors), rows, p, eps, site, dtype)
    if backend == "triton":
        from memofast.kernels import embed as kernels

        return *kernels.backward(grad, statistics, tensors, p, site), None
    types, visual, speech = tensors[TYPES], tensors[VISUAL], tensors[SPEECH]
    features = (
        types.new_empty(0, dtype=torch.float32) if own is None else torch.empty_like(own) for own in (visual, speech)
    )
    contents = (library.output_like(tensors[2]), *features)
    sums = torch.empty((sum_rows(tensors), types.shape[1]), dtype=torch.float32, device=types.device)
    order = torch.sort(tensors[0], stable=True).indices
    added = None if tensors[ADDED] is None else torch.empty_like(tensors[ADDED], dtype=torch.float32)
    orders = (
        None if tensors[place] is None else torch.sort(tensors[place], stable=True).indices for place in POSITIONS
    )
    workspace = None
    if backend == "cuda":
        workspace = torch.empty(_C.embed_workspace(tensors), dtype=torch.float32, device=types.device)
    results = (grad, statistics, (order, *contents, sums, added, *orders), workspace)
    _run(_C.embed_backward, tensors, results, rows, p, (), site, backend)
    return *contents, sums, added


def _backward_as_op(*arguments) -> tuple[Tensor, ...]:
    """`_backward` of the raw op, which returns an empty tensor for none."""
    *others, added = _backward(*arguments)
    return *others, arguments[0].new_empty(0, dtype=torch.float32) if added is None else added


def _run(kernel, tensors: tuple, results: tuple, rows: int, p: float, eps: tuple, site: int, backend: str) -> None:
    on_cuda = backend == "cuda"
    numbers = (site, philox.drop_threshold(p), philox.keep_scale(p), *eps, on_cuda, library.stream(tensors[TYPES]))
    status = kernel(tensors, *results, *numbers)
    if status == faults.NOT_AS_NEEDED:
        tensors = tuple(_in_fp32(t) if place in TABLES else t for place, t in enumerate(tensors))
        status = kernel(tensors, *results, *numbers)
    if status in (-2, -3):
        refuse_bad_indices(operands_of(tensors), rows)
    faults.check_status("embed", status, tensors)


def _as(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype is dtype else tensor.to(dtype)


def _in_fp32(table: Tensor | None) -> Tensor | None:
    return _as(table, torch.float32) if table is not None and table.is_floating_point() else table


def _schema_of(prefix: str, fields: tuple[str, ...], optional: Iterable[str]) -> str:
    return ", ".join(f"Tensor{'?' if field in optional else ''} {prefix}_{field}" for field in fields)


_FEATURES = FeatureRows._fields
_SCHEMA = (
    f"{_schema_of('text', TextRows._fields, TextRows._field_defaults)}, Tensor types, Tensor offsets, "
    f"{_schema_of('visual', _FEATURES, _FEATURES)}, {_schema_of('speech', _FEATURES, _FEATURES)}, "
    "Tensor? rng, Tensor? sample_keys, int rows, float p, float eps, int site, ScalarType dtype, str backend"
)


def _fake_forward(*arguments):
    types, rows, dtype, backend = arguments[TYPES], arguments[COUNT], arguments[-2], arguments[-1]
    kept = 0 if backend == "reference" else rows
    return types.new_empty((rows, types.shape[1]), dtype=dtype), types.new_empty((kept, 4), dtype=torch.float32)


def _fake_backward(grad, statistics, *arguments):
    tensors, types = arguments[:COUNT], arguments[TYPES]
    features = (tensors[VISUAL], tensors[SPEECH])
    contents = [grad.new_empty(0, dtype=torch.float32) if own is None else torch.empty_like(own) for own in features]
    sums = types.new_empty((sum_rows(tensors), types.shape[1]), dtype=sum_type(arguments[-2], types.dtype))
    added = grad.new_empty(0, dtype=torch.float32)
    if tensors[ADDED] is not None:
        added = torch.empty_like(tensors[ADDED], dtype=sums.dtype)
    return torch.empty_like(tensors[2]), *contents, sums, added


def _check_forward(*arguments) -> None:
    tensors, (rows, p, eps, site, dtype, backend) = arguments[:COUNT], arguments[COUNT:]
    library.check_count("embed", "rows", rows)
    check(operands_of(tensors), p, eps, site, dtype, backend)


def _check_backward(grad: Tensor, statistics: Tensor, *arguments) -> None:
    _check_forward(*arguments)
    rows, dtype, types = arguments[COUNT], arguments[-2], arguments[TYPES]
    shape = (rows, types.shape[1])
    library.check_tensor("embed_backward", "grad", grad, shape=shape, dtype=dtype, device=types.device)
    if types.is_cpu:  # a GPU would be waited for
        refuse_bad_indices(operands_of(arguments[:COUNT]), rows)
    kept = 0 if arguments[-1] == "reference" else rows
    shape = (kept, 4)
    library.check_tensor(
        "embed_backward", "statistics", statistics, shape=shape, dtype=torch.float32, device=types.device
    )


def _refuse(named: dict) -> None:
    tensors = [value for name, value in named.items() if name not in ("grad", "statistics")][:COUNT]
    refuse_bad_indices(operands_of(tensors), named["rows"])


_embed = library.define(
    f"embed({_SCHEMA}) -> (Tensor, Tensor)", _forward, _fake_forward, BACKENDS, _check_forward, refuse=_refuse
)
_embed_backward = library.define(
    f"embed_backward(Tensor grad, Tensor statistics, {_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_as_op,
    _fake_backward,
    BACKENDS,
    _check_backward,
    refuse=_refuse,
)


class _Embed(torch.autograd.Function):
    """`at_once`: see `library.calls_at_once`."""

    @staticmethod
    def forward(ctx, at_once, options, *tensors):
        out, statistics = (_forward if at_once else _embed)(*tensors, *options)
        ctx.save_for_backward(statistics, *tensors)
        ctx.options = at_once, options
        return out

    @staticmethod
    def backward(ctx, grad):
        at_once, options = ctx.options
        statistics, *tensors = ctx.saved_tensors
        backward = _backward if at_once and library.records_nothing() else _embed_backward
        return None, None, *gradients_of(tensors, *backward(grad.contiguous(), statistics, *tensors, *options))


def embed(
    text: TextRows,
    types: Tensor,
    offsets: Tensor,
    *,
    visual: FeatureRows | None = None,
    speech: FeatureRows | None = None,
    rows: int | None = None,
    p: float = 0.0,
    eps: float = 1e-12,
    rng: Tensor | None = None,
    sample_keys: Tensor | None = None,
    site: int = 0,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """Packed hidden rows: Dropout(LN(word + position + type)) and Dropout(LN(LN(projected or mask) + position + type)).

    Args:
        text, visual, speech: see `TextRows`, `FeatureRows`; a feature modality may be None. Position = row within the
        modality in its sample, or what `positions` says; text.added joins the word. Tables and text.added fp32 or the
            compute type.
        types: [3, C], rows for text, visual, speech. offsets: [B+1] int32, the sum of the modalities' offsets.
        rows: of the output; None: the sum of the modalities' rows.
        p: dropout probability, drawn by row within the joint sample (`philox.hidden_keep_mask`); see
            `philox.keep_scale` for the scale of kept ones.
        rng: [2] int64, run seed and update number; sample_keys [B] int64; site: `philox.site`. Needed where p > 0.
        dtype: the compute type, of the output; None: that of `projected`, else of `word`.
        backend: auto, reference, cpu, cuda (C up to 1024; the word table fp32 or the compute type), or triton (C up to
        1024). The last two take no `positions` and no `added`: with them `auto` is `reference` on a GPU, and naming one
            of the two raises.
    Returns: [rows, C] in `dtype`; rows past offsets[-1] are zero, and so are their gradients.
    Raises: ValueError for a wrong shape, type, device or stride; for offsets, ids, positions or source rows out of
        range and for samples longer than a position table by `reference` and on the CPU, and on a GPU where
        MEMOFAST_DEBUG is 1.
    Notes: arithmetic and statistics in fp32; gradients of tables are added in a fixed order, so two runs are bitwise
    equal for any number of threads; a sample's rows do not depend on the rest of the batch.
    """
    if not isinstance(types, Tensor) or not isinstance(text, TextRows) or not isinstance(text.word, Tensor):
        refuse_no_rows(text, types)
    if type(p) is not float or type(eps) is not float:
        p, eps = library.as_number("embed", "p", p), library.as_number("embed", "eps", eps)
    dtype = output_type(text, visual, speech) if dtype is None else dtype
    operands = Operands(text, types, offsets, visual, speech, rng, sample_keys)
    tensors = operands.flat()
    automatic = automatic_backend(types, text.word, dtype, takes_further(tensors))
    backend = library.resolve("embed", backend, automatic, BACKENDS)
    if backend != automatic:
        refuse_further(tensors, backend)
        library.require_device("embed", backend, types)
    at_once = library.calls_at_once() and _fits(tensors, dtype, p, backend)
    if not at_once:
        check(operands, p, eps, site, dtype, backend)
        visual, speech = _in_compute_type(visual, dtype), _in_compute_type(speech, dtype)
        tensors = operands._replace(visual=visual, speech=speech).flat()
    rows = total_rows(text, visual, speech) if rows is None else rows
    options = (rows, p, eps, site, dtype, backend)
    if torch.is_grad_enabled() and (text.word.requires_grad or _any_requires_grad(tensors)):
        return _Embed.apply(at_once, options, *tensors)
    return (_forward if at_once else _embed)(*tensors, *options)[0]


def _any_requires_grad(tensors: tuple) -> bool:
    return any(tensors[place] is not None and tensors[place].requires_grad for place in FLOATING)


def _fits(tensors: tuple, dtype: torch.dtype, p: float, backend: str) -> bool:
    """What `check` checks, of operands that a kernel takes as they are, in a fraction of its time."""
    types = _KERNEL_TYPES.get(backend, {})
    return dtype in types and _C.embed_fits(tensors, types[dtype], p > 0, backend == "cuda")


def automatic_backend(types: Tensor, word: Tensor, dtype: torch.dtype, further: bool = False) -> str:
    """What `auto` means; further: with positions that rows name, or rows added to text."""
    if dtype is torch.float64:
        return "reference"
    uncovered = () if types.is_cpu else _uncovered(types.shape[-1], word.dtype, dtype, further)
    return backends.automatic("embed", types, uncovered)


def _uncovered(width: int, word: torch.dtype, dtype: torch.dtype, further: bool) -> tuple[str, ...]:
    """Kernels of GPUs that take no rows of this width, no word table of this type, or nothing further."""
    if width > _WIDEST_ON_GPU or word is torch.float64 or further:
        return "cuda", "triton"
    return () if word in (torch.float32, dtype) else ("cuda",)


def _in_compute_type(own: FeatureRows | None, dtype: torch.dtype) -> FeatureRows | None:
    if own is None or (own.projected.dtype is dtype and (own.mask is None or own.mask.dtype is dtype)):
        return own
    return own._replace(projected=own.projected.to(dtype), mask=_as(own.mask, dtype))

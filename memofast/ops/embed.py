"""Multimodal embeddings: words and projected features to packed rows, each sample as text, visual, speech.

Source of the formulas: MEmoBERT's embeddings, LN(word + position + type) and LN(LN(projection) + position + type), then dropout.
"""

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import library, philox
from memofast.ops.embed_operands import (
    CONTENT,
    COUNT,
    FLOATING,
    SPEECH,
    TYPES,
    VISUAL,
    FeatureRows,
    Operands,
    TextRows,
    check,
    operands_of,
    output_type,
    refuse_bad_indices,
    total_rows,
)
from memofast.ops.embed_reference import embed_reference, embed_reference_backward

BACKENDS = ("reference", "cpu", "cuda")
_WIDEST_ON_CUDA = 1024


def _forward(*arguments) -> tuple[Tensor, Tensor]:
    operands, (rows, p, eps, site, dtype, backend) = operands_of(arguments[:COUNT]), arguments[COUNT:]
    types = operands.types
    if backend == "reference":
        refuse_bad_indices(operands, rows)
        text, types, offsets, visual, speech, rng, sample_keys = operands
        options = {"rows": rows, "p": p, "eps": eps, "rng": rng, "sample_keys": sample_keys, "site": site}
        out = embed_reference(text, types, offsets, visual=visual, speech=speech, dtype=dtype, **options)
        return out, types.new_empty((0, 4), dtype=torch.float32)
    out = torch.empty((rows, types.shape[1]), dtype=dtype, device=types.device)
    statistics = torch.empty((rows, 4), dtype=torch.float32, device=types.device)
    _kernel(operands, None, None, out, statistics, rows, p, eps, site, dtype, backend == "cuda")
    return out, statistics


def _backward(grad: Tensor, statistics: Tensor, *arguments) -> list[Tensor]:
    flat, (rows, p, eps, site, dtype, backend) = arguments[:COUNT], arguments[COUNT:]
    operands = operands_of(flat)
    if backend == "reference":
        return embed_reference_backward(grad, operands, rows, p, eps, site, dtype)
    likes = [flat[place] for place in FLOATING]
    found = [_room(like, place in CONTENT) for place, like in zip(FLOATING, likes, strict=True)]
    grads = dict(zip(FLOATING, found, strict=True))
    if operands.visual is None or operands.speech is None:
        grads[TYPES].zero_()
    _kernel(operands, grads, grad, None, statistics, rows, p, eps, site, dtype, backend == "cuda")
    return [g if like is None else _as(g, like.dtype) for g, like in zip(found, likes, strict=True)]


def _room(like: Tensor | None, is_content: bool) -> Tensor:
    """Memory for the gradient of `like`; sums over rows are kept in fp32."""
    if like is None:
        return torch.empty(0)
    return torch.empty(like.shape, dtype=like.dtype if is_content else torch.float32, device=like.device)


def _as(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype is dtype else tensor.to(dtype)


def _kernel(operands, grads, grad, out, statistics, rows, p, eps, site, dtype, on_cuda) -> None:
    if on_cuda and library.debugging():
        refuse_bad_indices(operands, rows)
    text, _, offsets, visual, speech, rng, sample_keys = operands
    types = _as(operands.types, torch.float32)
    order = None if grads is None else torch.sort(text.token_ids, stable=True).indices
    modalities, kept = [], [types, order]  # conversions must outlive the call
    for kind, own in enumerate((text, visual, speech)):
        modality, tables = _modality(own, kind, types, grads, order)
        modalities.append(modality)
        kept += tables
    addresses = map(library.pointer, (offsets, rng, sample_keys, grad, out, statistics))
    numbers = (rows, offsets.shape[0] - 1, types.shape[1], site, philox.drop_threshold(p), philox.keep_scale(p), eps)
    codes = (library.TYPE_CODES[dtype], library.TYPE_CODES[text.word.dtype])
    room = _C.embed_workspace(*modalities, types.shape[1]) if on_cuda and grads is not None else 0
    workspace = torch.empty(room, dtype=torch.float32, device=types.device) if room else None
    device = (library.pointer(workspace), on_cuda, library.stream(types))
    status = _C.embed(grads is not None, *modalities, *addresses, *numbers, *codes, *device)
    if status in (-2, -3):
        refuse_bad_indices(operands, rows)
    library.check_status("embed", status)


def _modality(own, kind: int, types: Tensor, grads: dict | None, order: Tensor | None) -> tuple:
    """Addresses and sizes of one modality, and the tables they point into."""
    if own is None:
        return _C.EmbedModality(), ()
    if kind == 0:
        content, index, mask = own.word, own.token_ids, None
        tables = (own.position, None, None, own.gamma, own.beta)
        places = (2, None, 3, None, None, 4, 5)
    else:
        content, index, mask, tables = own.projected, own.source, own.mask, own[4:]
        first = VISUAL if kind == 1 else SPEECH
        places = (first, first + 3, *range(first + 4, first + 9))
    tables = [_as(table, torch.float32) for table in tables]
    row = kind * types.shape[1] * 4  # of `types`, in bytes
    position, *norms = map(library.pointer, tables)
    addresses = (*map(library.pointer, (own.offsets, index, content, mask)), position, types.data_ptr() + row, *norms)
    if grads is None:
        gradients = (0,) * 9
    else:
        grad_content, grad_mask, *sums = (library.pointer(grads.get(place)) for place in places)
        gradients = (grad_content, grad_mask, library.pointer(order), sums[0], grads[TYPES].data_ptr() + row, *sums[1:])
    sizes = (own[0].shape[0], content.shape[0], own.position.shape[0])
    return _C.EmbedModality(addresses + gradients, *sizes), tables


def _schema_of(prefix: str, fields: tuple[str, ...], optional: bool) -> str:
    return ", ".join(f"Tensor{'?' if optional else ''} {prefix}_{field}" for field in fields)


_SCHEMA = (
    f"{_schema_of('text', TextRows._fields, False)}, Tensor types, Tensor offsets, "
    f"{_schema_of('visual', FeatureRows._fields, True)}, {_schema_of('speech', FeatureRows._fields, True)}, "
    "Tensor? rng, Tensor? sample_keys, int rows, float p, float eps, int site, ScalarType dtype, str backend"
)


def _fake_forward(*arguments):
    types, rows, dtype, backend = arguments[TYPES], arguments[COUNT], arguments[-2], arguments[-1]
    kept = 0 if backend == "reference" else rows
    return types.new_empty((rows, types.shape[1]), dtype=dtype), types.new_empty((kept, 4), dtype=torch.float32)


def _fake_backward(grad, statistics, *arguments):
    likes = (arguments[place] for place in FLOATING)
    return [grad.new_empty(0, dtype=torch.float32) if like is None else torch.empty_like(like) for like in likes]


_embed = library.define(f"embed({_SCHEMA}) -> (Tensor, Tensor)", _forward, _fake_forward)
_embed_backward = library.define(
    f"embed_backward(Tensor grad, Tensor statistics, {_SCHEMA}) -> Tensor[]", _backward, _fake_backward
)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments):
        out, statistics = _embed(*arguments)
        ctx.save_for_backward(statistics, *arguments[:COUNT])
        ctx.options = arguments[COUNT:]
        return out

    @staticmethod
    def backward(ctx, grad):
        statistics, *tensors = ctx.saved_tensors
        found = _embed_backward(grad.contiguous(), statistics, *tensors, *ctx.options)
        gradients = [None] * (COUNT + len(ctx.options))
        for place, gradient in zip(FLOATING, found, strict=True):
            if tensors[place] is not None:
                gradients[place] = gradient
        return tuple(gradients)


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
        text, visual, speech: see `TextRows`, `FeatureRows`; a feature modality may be None. Position = row within the modality in
            its sample. Tables fp32 or the compute type.
        types: [3, C], rows for text, visual, speech. offsets: [B+1] int32, the sum of the modalities' offsets.
        rows: of the output; None: the sum of the modalities' rows.
        p: dropout probability, drawn by row within the joint sample (`philox.hidden_keep_mask`); see
            `philox.keep_scale` for the scale of kept ones.
        rng: [2] int64, run seed and update number; sample_keys [B] int64; site: `philox.site`. Needed where p > 0.
        dtype: the compute type, of the output; None: that of `projected`, else of `word`.
        backend: auto, reference, cpu or cuda (C up to 1024; the word table fp32 or the compute type).
    Returns: [rows, C] in `dtype`; rows past offsets[-1] are zero, and so are their gradients.
    Raises: ValueError for a wrong shape, type, device or stride; for offsets, ids or source rows out of range and for samples longer
        than a position table on the CPU, and on a GPU where MEMOFAST_DEBUG is 1.
    Notes: arithmetic and statistics in fp32; gradients of tables are added in a fixed order, so two runs are bitwise equal for any
        number of threads; a sample's rows do not depend on the rest of the batch.
    """
    dtype = output_type(text, visual, speech) if dtype is None else dtype
    backend = library.resolve("embed", backend, _automatic(types, text.word, dtype), BACKENDS)
    library.require_device("embed", backend, types)
    check(Operands(text, types, offsets, visual, speech, rng, sample_keys), p, dtype, backend)
    rows = total_rows(text, visual, speech) if rows is None else rows
    visual, speech = _in_compute_type(visual, dtype), _in_compute_type(speech, dtype)
    tensors = Operands(text, types, offsets, visual, speech, rng, sample_keys).flat()
    arguments = (*tensors, rows, float(p), float(eps), site, dtype, backend)
    if torch.is_grad_enabled() and any(
        tensors[place] is not None and tensors[place].requires_grad for place in FLOATING
    ):
        return _Embed.apply(*arguments)
    return _embed(*arguments)[0]


def _automatic(types: Tensor, word: Tensor, dtype: torch.dtype) -> str:
    backend = library.row_backend(types)
    if dtype is torch.float64:
        return "reference"
    covered = types.shape[-1] <= _WIDEST_ON_CUDA and word.dtype in (torch.float32, dtype)
    return backend if covered or backend == "cpu" else "reference"


def _in_compute_type(own: FeatureRows | None, dtype: torch.dtype) -> FeatureRows | None:
    if own is None or (own.projected.dtype is dtype and (own.mask is None or own.mask.dtype is dtype)):
        return own
    return own._replace(projected=own.projected.to(dtype), mask=_as(own.mask, dtype))

"""Multimodal embeddings: words and projected features to packed rows, each sample as text, visual, speech.

Source of the formulas: MEmoBERT's embeddings, LN(word + position + type) and LN(LN(projection) + position + type), then dropout.
"""

import functools
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast import _C
from memofast.ops import library, philox

BACKENDS = ("reference", "cpu")


class TextRows(NamedTuple):
    """Text rows and their tables: token_ids [sum T] int32; offsets [B+1] int32; word [vocab, C]; position [P, C]; gamma, beta [C]."""

    token_ids: Tensor
    offsets: Tensor
    word: Tensor
    position: Tensor
    gamma: Tensor
    beta: Tensor


class FeatureRows(NamedTuple):
    """Rows of one feature modality and their tables.

    projected [rows, C]: projection with its bias, in the compute type; source [rows] int32 or None: the row of the same sample that
    each row reads, -1 for the mask vector (None: its own); offsets [B+1] int32; mask [C] or None: the mask vector, projected;
    position [P, C]; feature_gamma, feature_beta [C]: inner LayerNorm; gamma, beta [C]: outer LayerNorm.
    """

    projected: Tensor
    source: Tensor | None
    offsets: Tensor
    mask: Tensor | None
    position: Tensor
    feature_gamma: Tensor
    feature_beta: Tensor
    gamma: Tensor
    beta: Tensor


def embed_reference(
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
) -> Tensor:
    """The specification of `embed`; differentiable, any floating type. Computes in the wider of `dtype` and the type of `types`."""
    dtype = _output_type(text, visual, speech) if dtype is None else dtype
    compute = torch.promote_types(dtype, types.dtype)
    width = types.shape[1]
    rows = _total_rows(text, visual, speech) if rows is None else rows
    out = torch.zeros(rows, width, dtype=compute, device=types.device)
    first = offsets[:-1].to(torch.int64)  # joint row where each sample's rows of this modality start
    for modality, own in enumerate((text, visual, speech)):
        if own is None:
            continue
        sample, position = philox.rows_of(own.offsets, own[0].shape[0])
        inside = sample < offsets.shape[0] - 1
        sample, position = sample[inside], position[inside]
        content = _text_content(own, inside) if modality == 0 else _feature_content(own, inside, compute, eps)
        total = content.to(compute) + own.position[position].to(compute) + types[modality].to(compute)
        normed = F.layer_norm(total, (width,), own.gamma.to(compute), own.beta.to(compute), eps)
        out = out.index_put((first[sample] + position,), normed)
        first = first + own.offsets.diff()
    if p > 0:
        out = out * philox.hidden_keep_mask(rng, site, sample_keys, offsets, rows, width, p) / (1 - p)
    return out.to(dtype)


def _text_content(text: TextRows, inside: Tensor) -> Tensor:
    return text.word[text.token_ids[inside]]


def _feature_content(own: FeatureRows, inside: Tensor, compute: torch.dtype, eps: float) -> Tensor:
    table = own.projected if own.mask is None else torch.cat((own.projected, own.mask[None].to(own.projected.dtype)))
    source = own.source
    if source is None:
        source = torch.arange(own.projected.shape[0], device=own.projected.device)
    content = table[source[inside].to(torch.int64)].to(compute)  # index -1 is the mask vector, the last row
    return F.layer_norm(content, content.shape[1:], own.feature_gamma.to(compute), own.feature_beta.to(compute), eps)


def _total_rows(*modalities: TextRows | FeatureRows | None) -> int:
    return sum(own[0].shape[0] for own in modalities if own is not None)


def _output_type(text: TextRows, *features: FeatureRows | None) -> torch.dtype:
    return next((own.projected.dtype for own in features if own is not None), text.word.dtype)


def _unflatten(
    tensors: tuple,
) -> tuple[TextRows, Tensor, Tensor, FeatureRows | None, FeatureRows | None, Tensor, Tensor]:
    text, types, offsets, visual, speech, rng, sample_keys = (
        TextRows(*tensors[:6]),
        *tensors[6:8],
        FeatureRows(*tensors[8:17]),
        FeatureRows(*tensors[17:26]),
        *tensors[26:],
    )
    visual, speech = (None if own.projected is None else own for own in (visual, speech))
    return text, types, offsets, visual, speech, rng, sample_keys


# Positions of the tensors that have gradients in the flat list of operands, in the order `embed_backward` returns them.
_FLOATING = (2, 3, 4, 5, 6, 8, *range(11, 17), 17, *range(20, 26))
_CONTENT = (2, 8, 17)  # word table and projected rows: their gradients are written in their own type
_OPERANDS = len(TextRows._fields) + 2 + 2 * len(FeatureRows._fields) + 2


def _forward(*arguments) -> tuple[Tensor, Tensor]:
    tensors, (rows, p, eps, site, dtype, backend) = arguments[:_OPERANDS], arguments[_OPERANDS:]
    text, types, offsets, visual, speech, rng, sample_keys = _unflatten(tensors)
    if backend == "cpu":
        out = torch.empty((rows, types.shape[1]), dtype=dtype)
        statistics = torch.empty((rows, 4), dtype=torch.float32)
        _cpu(False, tensors, None, None, out, statistics, rows, p, eps, site, dtype)
        return out, statistics
    refuse_bad_indices(text, offsets, visual, speech, rows)
    options = {"rows": rows, "p": p, "eps": eps, "rng": rng, "sample_keys": sample_keys, "site": site, "dtype": dtype}
    out = embed_reference(text, types, offsets, visual=visual, speech=speech, **options)
    return out, types.new_empty((0, 4), dtype=torch.float32)


def _cpu(backward, tensors, found, grad, out, statistics, rows, p, eps, site, dtype) -> None:
    text, types, offsets, visual, speech, rng, sample_keys = _unflatten(tensors)
    types = types.float()
    grads = dict(zip(_FLOATING, found, strict=True)) if backward else {}
    kept, modalities = [types], []  # conversions must outlive the call
    for modality, (own, first) in enumerate(((text, 0), (visual, 8), (speech, 17))):
        if own is None:
            modalities.append(_C.EmbedModality())
            continue
        norms = (
            [t.float() for t in own[-5:]]
            if modality
            else [own.position.float(), None, None, own.gamma.float(), own.beta.float()]
        )
        order = torch.sort(own.token_ids, stable=True).indices if backward and modality == 0 else None
        kept += [*norms, order]
        if modality == 0:
            content, index, mask = own.word, own.token_ids, None
            slots = (2, None, 3, None, None, 4, 5)
        else:
            content, index, mask = own.projected, own.source, own.mask
            slots = (first, first + 3, *range(first + 4, first + 9))
        grad_content, grad_mask, grad_position, *grad_norms = (grads.get(slot) for slot in slots)
        grad_type = grads[6][modality] if backward else None
        addresses = (own.offsets, index, content, mask, norms[0], types[modality], *norms[1:])
        addresses += (grad_content, grad_mask, order, grad_position, grad_type, *grad_norms)
        sizes = (own[0].shape[0], content.shape[0], own.position.shape[0])
        modalities.append(_C.EmbedModality(tuple(map(library.pointer, addresses)), *sizes))
    addresses = map(library.pointer, (offsets, rng, sample_keys, grad, out, statistics))
    numbers = (rows, offsets.shape[0] - 1, types.shape[1], site, philox.drop_threshold(p), 1 / (1 - p), eps)
    codes = (library.TYPE_CODES[dtype], library.TYPE_CODES[text.word.dtype])
    status = _C.embed(backward, *modalities, *addresses, *numbers, *codes)
    if status in (-2, -3):
        refuse_bad_indices(text, offsets, visual, speech, rows)
    library.check_status("embed", status)


def _cpu_backward(grad, statistics, tensors, rows, p, eps, site, dtype) -> list[Tensor]:
    def room(place: int) -> Tensor:
        like = tensors[place]
        if like is None:
            return torch.empty(0, dtype=tensors[6].dtype)
        return torch.empty(like.shape, dtype=like.dtype if place in _CONTENT else torch.float32)

    found = [room(place) for place in _FLOATING]
    if tensors[8] is None or tensors[17] is None:
        found[_FLOATING.index(6)].zero_()
    _cpu(True, tensors, found, grad, None, statistics, rows, p, eps, site, dtype)
    return [
        g if like is None else g.to(like.dtype) for g, like in zip(found, (tensors[i] for i in _FLOATING), strict=True)
    ]


def _reference_backward(grad: Tensor, tensors: tuple, rows, p, eps, site, dtype) -> list[Tensor]:
    """The derivative written out, in the order of `_FLOATING`: a raw op cannot record gradients of its own."""
    text, types, offsets, visual, speech, rng, sample_keys = _unflatten(tensors)
    compute = torch.promote_types(dtype, types.dtype)
    grad, width = grad.to(compute), types.shape[1]
    if p > 0:
        grad = grad * philox.hidden_keep_mask(rng, site, sample_keys, offsets, rows, width, p) / (1 - p)
    first, found, grad_types = (
        offsets[:-1].to(torch.int64),
        [],
        torch.zeros(3, width, dtype=compute, device=types.device),
    )
    for modality, own in enumerate((text, visual, speech)):
        if own is None:
            found += [None] * 7
            continue
        sample, position = philox.rows_of(own.offsets, own[0].shape[0])
        inside = sample < offsets.shape[0] - 1
        sample, position = sample[inside], position[inside]
        content = _text_content(own, inside) if modality == 0 else _feature_content(own, inside, compute, eps)
        total = content.to(compute) + own.position[position].to(compute) + types[modality].to(compute)
        grad_total, gamma, beta = _norm_backward(grad[first[sample] + position], total, own.gamma.to(compute), eps)
        places = torch.zeros(own.position.shape, dtype=compute, device=grad.device).index_add_(0, position, grad_total)
        grad_types[modality] = grad_total.sum(0)
        if modality == 0:
            word = torch.zeros(own.word.shape, dtype=compute, device=grad.device)
            found += [word.index_add_(0, own.token_ids[inside], grad_total), places, gamma, beta, grad_types]
        else:
            found += [*_feature_backward(own, inside, grad_total, places, eps), gamma, beta]
        first = first + own.offsets.diff()
    likes = [tensors[place] for place in _FLOATING]
    return [
        types.new_empty(0) if like is None else g.to(like.dtype, copy=True)
        for g, like in zip(found, likes, strict=True)
    ]


def _feature_backward(own: FeatureRows, inside: Tensor, grad: Tensor, places: Tensor, eps: float) -> list[Tensor]:
    rows, width = own.projected.shape
    table = torch.cat((own.projected, torch.zeros_like(own.projected[:0]) if own.mask is None else own.mask[None]))
    source = torch.arange(rows, device=grad.device) if own.source is None else own.source.to(torch.int64)
    source = torch.where(source < 0, rows, source)[inside]
    gamma = own.feature_gamma.to(grad.dtype)
    grad_content, feature_gamma, feature_beta = _norm_backward(grad, table[source].to(grad.dtype), gamma, eps)
    read = torch.zeros(rows + 1, width, dtype=grad.dtype, device=grad.device).index_add_(0, source, grad_content)
    return [read[:rows], grad.new_empty(0) if own.mask is None else read[rows], places, feature_gamma, feature_beta]


def _norm_backward(grad: Tensor, x: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a LayerNorm's input, gamma and beta."""
    centred = x - x.mean(-1, keepdim=True)
    rstd = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    normed, scaled = centred * rstd, grad * gamma
    shift = scaled.mean(-1, keepdim=True) + normed * (scaled * normed).mean(-1, keepdim=True)
    return rstd * (scaled - shift), (grad * normed).sum(0), grad.sum(0)


def _backward(grad, statistics, *arguments) -> list[Tensor]:
    tensors, (rows, p, eps, site, dtype, backend) = arguments[:_OPERANDS], arguments[_OPERANDS:]
    backward = (
        functools.partial(_cpu_backward, grad, statistics)
        if backend == "cpu"
        else functools.partial(_reference_backward, grad)
    )
    return backward(tensors, rows, p, eps, site, dtype)


def refuse_bad_indices(text: TextRows, offsets: Tensor, visual, speech, rows: int) -> None:
    """Raise a `ValueError` naming the offsets, ids, positions or source rows that lie outside. Waits for the device."""
    joint = torch.zeros_like(offsets)
    for name, own in (("text", text), ("visual", visual), ("speech", speech)):
        if own is None:
            continue
        bounds = own.offsets.tolist()
        if bounds[0] != 0 or bounds[-1] > own[0].shape[0] or any(b < a for a, b in pairwise(bounds)):
            raise ValueError(f"embed: {name}.offsets must start at 0, never decrease and end within the rows given")
        longest, positions = max((b - a for a, b in pairwise(bounds)), default=0), own.position.shape[0]
        if longest > positions:
            raise ValueError(f"embed: {name}.position has {positions} rows, but a sample has {longest} {name} rows")
        if name == "text":
            _refuse_outside("text.token_ids", text.token_ids[: bounds[-1]], 0, text.word.shape[0])
        elif own.source is not None:
            _refuse_foreign_sources(name, own, bounds[-1])
        joint = joint + own.offsets
    if not torch.equal(joint, offsets):
        raise ValueError("embed: offsets must be the sum of the offsets of the modalities given")
    if rows < int(offsets[-1]):
        raise ValueError(f"embed: rows must be at least offsets[-1] = {int(offsets[-1])}, got {rows}")


def _refuse_outside(name: str, ids: Tensor, low: int, high: int) -> None:
    if ids.numel() and (int(ids.min()) < low or int(ids.max()) >= high):
        raise ValueError(f"embed: {name} must lie in [{low}, {high}), got {int(ids.min())} to {int(ids.max())}")


def _refuse_foreign_sources(name: str, own: FeatureRows, end: int) -> None:
    source = own.source[:end].to(torch.int64)
    _refuse_outside(f"{name}.source", source, 0 if own.mask is None else -1, max(end, 1))
    reading, _ = philox.rows_of(own.offsets, end)
    if bool(((source >= 0) & (reading[source.clamp(min=0)] != reading)).any()):
        raise ValueError(f"embed: {name}.source must name rows of the same sample")


def _schema_of(prefix: str, fields: tuple[str, ...], optional: bool) -> str:
    return ", ".join(f"Tensor{'?' if optional else ''} {prefix}_{field}" for field in fields)


_SCHEMA = (
    f"{_schema_of('text', TextRows._fields, False)}, Tensor types, Tensor offsets, "
    f"{_schema_of('visual', FeatureRows._fields, True)}, {_schema_of('speech', FeatureRows._fields, True)}, "
    "Tensor? rng, Tensor? sample_keys, int rows, float p, float eps, int site, ScalarType dtype, str backend"
)


def _fake_forward(*arguments):
    types, rows, dtype, backend = arguments[6], arguments[_OPERANDS], arguments[-2], arguments[-1]
    kept = 0 if backend == "reference" else rows
    return types.new_empty((rows, types.shape[1]), dtype=dtype), types.new_empty((kept, 4), dtype=torch.float32)


def _fake_backward(grad, statistics, *arguments):
    return [
        grad.new_empty(0, dtype=arguments[6].dtype) if arguments[place] is None else torch.empty_like(arguments[place])
        for place in _FLOATING
    ]


_embed = library.define(f"embed({_SCHEMA}) -> (Tensor, Tensor)", _forward, _fake_forward)
_embed_backward = library.define(
    f"embed_backward(Tensor grad, Tensor statistics, {_SCHEMA}) -> Tensor[]", _backward, _fake_backward
)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments):
        out, statistics = _embed(*arguments)
        ctx.save_for_backward(statistics, *arguments[:_OPERANDS])
        ctx.options = arguments[_OPERANDS:]
        return out

    @staticmethod
    def backward(ctx, grad):
        statistics, *tensors = ctx.saved_tensors
        found = _embed_backward(grad.contiguous(), statistics, *tensors, *ctx.options)
        gradients = [None] * (_OPERANDS + len(ctx.options))
        for place, gradient in zip(_FLOATING, found, strict=True):
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
        p: dropout probability, drawn by row within the joint sample (`philox.hidden_keep_mask`); kept ones are scaled by 1 / (1 - p).
        rng: [2] int64, run seed and update number; sample_keys [B] int64; site: `philox.site`. Needed where p > 0.
        dtype: the compute type, of the output; None: that of `projected`, else of `word`.
        backend: auto, reference, cpu or cuda.
    Returns: [rows, C] in `dtype`; rows past offsets[-1] are zero, and so are their gradients.
    Raises: ValueError for a wrong shape, type, device or stride; on the CPU also for offsets, ids or source rows out of range and for
        samples longer than a position table.
    Notes: arithmetic and statistics in fp32; gradients of tables are added in a fixed order, so two runs are bitwise equal for any
        number of threads; a sample's rows do not depend on the rest of the batch.
    """
    dtype = _output_type(text, visual, speech) if dtype is None else dtype
    backend = library.resolve("embed", backend, _automatic(types, dtype), BACKENDS)
    library.require_device("embed", backend, types)
    features = {"visual": visual, "speech": speech}
    _check(text, types, offsets, features, p, rng, sample_keys, dtype, backend)
    visual, speech = (_in_compute_type(own, dtype) for own in features.values())
    rows = _total_rows(text, visual, speech) if rows is None else rows
    none = (None,) * len(FeatureRows._fields)
    tensors = (*text, types, offsets, *(visual or none), *(speech or none), rng, sample_keys)
    arguments = (*tensors, rows, float(p), float(eps), site, dtype, backend)
    if torch.is_grad_enabled() and any(
        tensors[place] is not None and tensors[place].requires_grad for place in _FLOATING
    ):
        return _Embed.apply(*arguments)
    return _embed(*arguments)[0]


def _automatic(types: Tensor, dtype: torch.dtype) -> str:
    return "cpu" if types.device.type == "cpu" and dtype != torch.float64 else "reference"


def _in_compute_type(own: FeatureRows | None, dtype: torch.dtype) -> FeatureRows | None:
    if own is None:
        return None
    mask = None if own.mask is None else own.mask.to(dtype)
    return own._replace(projected=own.projected.to(dtype), mask=mask)


def _check(text, types, offsets, features, p, rng, sample_keys, dtype, backend) -> None:
    device, floats = types.device, [torch.float32, torch.bfloat16]
    floats += [torch.float16] if types.is_cuda else []
    floats += [torch.float64] if backend == "reference" else []
    if dtype not in floats:
        raise ValueError(f"embed: dtype must be one of {', '.join(map(str, floats))}, got {dtype}")
    floats = tuple(floats)

    def check(name: str, tensor: Tensor, shape: tuple, kinds: torch.dtype | tuple) -> None:
        library.check_tensor("embed", name, tensor, shape=shape, dtype=kinds, device=device)

    check("types", types, (3, None), floats)
    check("offsets", offsets, (None,), torch.int32)
    if not offsets.shape[0]:
        raise ValueError("embed: offsets must have shape [B + 1], got [0]")
    width, bounds = types.shape[1], tuple(offsets.shape)
    given = {"text": text} | {name: own for name, own in features.items() if own is not None}
    for name, own in given.items():
        check(f"{name}.offsets", own.offsets, bounds, torch.int32)
        for field, tensor in own._asdict().items():
            if field in ("token_ids", "source") and tensor is not None:
                check(f"{name}.{field}", tensor, (own[0].shape[0],), torch.int32)
            elif field in ("word", "projected", "position"):
                check(f"{name}.{field}", tensor, (None, width), floats)
            elif field not in ("token_ids", "source", "offsets") and tensor is not None:
                check(f"{name}.{field}", tensor, (width,), floats)
    philox.drop_threshold(p)
    if p > 0:
        if rng is None or sample_keys is None:
            raise ValueError("embed: dropout (p > 0) needs rng and sample_keys")
        check("rng", rng, (2,), torch.int64)
        check("sample_keys", sample_keys, (bounds[0] - 1,), torch.int64)

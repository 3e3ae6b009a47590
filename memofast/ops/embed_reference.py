"""The specification of `embed` in plain PyTorch, and its derivative written out."""

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.ops import philox
from memofast.ops.embed_operands import FeatureRows, Operands, TextRows, output_type, sum_type, total_rows


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
    """The specification of `embed`; differentiable, any floating type. Computes in the wider of `dtype` and the type of
    `types`."""
    dtype = output_type(text, visual, speech) if dtype is None else dtype
    compute = torch.promote_types(dtype, types.dtype)
    rows = total_rows(text, visual, speech) if rows is None else rows
    out = torch.zeros(rows, types.shape[1], dtype=compute, device=types.device)
    first = offsets[:-1].to(torch.int64)  # joint row where each sample's rows of this modality start
    for modality, own in enumerate((text, visual, speech)):
        if own is None:
            continue
        sample, position, inside = _places(own, offsets)
        total = _total(own, types[modality], _named(own, position, inside), inside, compute, eps)
        normed = F.layer_norm(total, total.shape[1:], own.gamma.to(compute), own.beta.to(compute), eps)
        out = out.index_put((first[sample] + position,), normed)
        first = first + own.offsets.diff()
    return _dropped(out, rng, site, sample_keys, offsets, p).to(dtype)


def _places(own: TextRows | FeatureRows, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sample and position of the rows that belong to a sample, and which rows do."""
    sample, position = philox.rows_of(own.offsets, own[0].shape[0])
    inside = sample < offsets.shape[0] - 1
    return sample[inside], position[inside], inside


def _named(own: TextRows | FeatureRows, position: Tensor, inside: Tensor) -> Tensor:
    """The row of the position table that each row inside uses."""
    return position if own.positions is None else own.positions[inside].to(torch.int64)


def _total(own, own_type: Tensor, position: Tensor, inside: Tensor, compute: torch.dtype, eps: float) -> Tensor:
    """Content, with what is added to it, + position + type of the rows inside, before the outer norm."""
    if isinstance(own, TextRows):
        content = own.word[own.token_ids[inside]].to(compute)
        if own.added is not None:
            content = content + own.added[inside].to(compute)
    else:
        content = _projected_or_mask(own)[_source(own)[inside]].to(compute)
        content = F.layer_norm(
            content, content.shape[1:], own.feature_gamma.to(compute), own.feature_beta.to(compute), eps
        )
    return content + own.position[position].to(compute) + own_type.to(compute)


def _projected_or_mask(own: FeatureRows) -> Tensor:
    """The projected rows, then the mask vector."""
    mask = own.projected[:0] if own.mask is None else own.mask[None].to(own.projected.dtype)
    return torch.cat((own.projected, mask))


def _source(own: FeatureRows) -> Tensor:
    """Rows of `_projected_or_mask` to read."""
    rows = own.projected.shape[0]
    if own.source is None:
        return torch.arange(rows, device=own.projected.device)
    return torch.where(own.source < 0, rows, own.source.to(torch.int64))


def _dropped(x: Tensor, rng, site: int, sample_keys, offsets: Tensor, p: float) -> Tensor:
    if p == 0:
        return x
    return x * philox.hidden_keep_mask(rng, site, sample_keys, offsets, *x.shape, p) * philox.keep_scale(p)


def embed_reference_backward(grad: Tensor, operands: Operands, rows, p, eps, site, dtype) -> tuple[Tensor | None, ...]:
    """The derivative written out, as `embed_backward` returns it: a raw op cannot record gradients of its own."""
    types, offsets = operands.types, operands.offsets
    compute, kept = torch.promote_types(dtype, types.dtype), sum_type(dtype, types.dtype)
    grad = _dropped(grad.to(compute), operands.rng, site, operands.sample_keys, offsets, p)
    first, contents, grad_types = offsets[:-1].to(torch.int64), [], grad.new_zeros(types.shape)
    positions, vectors, added = [], [], None
    for modality, own in enumerate(operands.modalities):
        if own is None:
            contents.append(grad.new_empty(0, dtype=torch.float32))
            vectors += [grad.new_zeros(types.shape[1])] * 5
            continue
        sample, position, inside = _places(own, offsets)
        named = _named(own, position, inside)
        total = _total(own, types[modality], named, inside, compute, eps)
        grad_total, *norm = _norm_backward(grad[first[sample] + position], total, own.gamma.to(compute), eps)
        positions.append(_gathered(own.position, named, grad_total))
        grad_types[modality] = grad_total.sum(0)
        if modality == 0:
            contents.append(_gathered(own.word, own.token_ids[inside], grad_total).to(own.word.dtype))
            vectors += norm
            if own.added is not None:
                added = grad.new_zeros(own.added.shape, dtype=kept)
                added[inside] = grad_total.to(kept)
        else:
            projected, *inner = _feature_backward(own, inside, grad_total, eps)
            contents.append(projected.to(own.projected.dtype, copy=True))
            vectors += [*inner, *norm]
        first = first + own.offsets.diff()
    sums = torch.cat((*positions, grad_types, torch.stack(vectors)))
    return *contents, sums.to(kept), added


def _gathered(table: Tensor, ids: Tensor, rows: Tensor) -> Tensor:
    """The gradient of a table from those of the rows that read it, added in their order."""
    gradient = rows.new_zeros(table.shape)
    if rows.is_cuda:  # index_add_ is atomic there; this sorts stably
        return gradient.index_put_((ids.to(torch.int64),), rows, accumulate=True)
    return gradient.index_add_(0, ids, rows)


def _feature_backward(own: FeatureRows, inside: Tensor, grad: Tensor, eps: float) -> list[Tensor]:
    """Gradients of projected rows, mask, feature_gamma and feature_beta from that of the normed feature; of no mask,
    zero."""
    rows, width = own.projected.shape
    source = _source(own)[inside]
    content = _projected_or_mask(own)[source].to(grad.dtype)
    grad_content, *norm = _norm_backward(grad, content, own.feature_gamma.to(grad.dtype), eps)
    read = grad.new_zeros(rows + 1, width).index_add_(0, source, grad_content)
    return [read[:rows], read[rows], *norm]


def _norm_backward(grad: Tensor, x: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a LayerNorm's input, gamma and beta."""
    centred = x - x.mean(-1, keepdim=True)
    rstd = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    normed, scaled = centred * rstd, grad * gamma
    shift = scaled.mean(-1, keepdim=True) + normed * (scaled * normed).mean(-1, keepdim=True)
    return rstd * (scaled - shift), (grad * normed).sum(0), grad.sum(0)

"""Attention in plain PyTorch: the specification, one sequence after the other, and a batch at once in padded cells."""

from typing import NamedTuple

import torch
from torch import Tensor

from memofast.ops import faults, library, philox

MAX_POSITION = 1 << 16  # a dropout position is head << 16 | query


def attention_keep_mask(
    rng: Tensor, site: int, sample_keys: Tensor, heads: int, length: int, p: float, queries: int | None = None
) -> Tensor:
    """Which probabilities attention dropout keeps.

    Layout: position = head << 16 | query, block = key // 8, lane = key % 8; query and key count from their sequence's
    start.
    Args: length: keys of each sequence; queries: as many as keys where None.
    Returns: [B, heads, queries, length] bool (sample, head, query, key).
    """
    device = sample_keys.device
    query = torch.arange(length if queries is None else queries, device=device)
    position = (torch.arange(heads, device=device)[:, None] << 16) | query
    blocks = torch.arange((length + 7) // 8, device=device)
    key = philox.stream_key(rng, philox.Purpose.ATTENTION_DROPOUT, site)
    words = philox.draw(key, sample_keys[:, None, None, None], position[None, :, :, None], blocks)
    return philox.lanes16(words).flatten(-2)[..., :length] >= philox.drop_threshold(p)


class Dropout(NamedTuple):
    """What `attention_keep_mask` and `philox.keep_scale` need; rng and sample_keys may be missing where p is 0."""

    rng: Tensor | None
    sample_keys: Tensor | None
    site: int
    p: float


class Spans(NamedTuple):
    """First row and length of every sequence's queries and keys; queries without a key count as no rows."""

    queries: list[tuple[int, int]]
    keys: list[tuple[int, int]]


def spans(
    qkv: Tensor, kv: Tensor | None, query_offsets: Tensor | None, offsets: Tensor, lengths: Tensor | None
) -> Spans:
    """Where the sequences lie, checked. Waits for the device."""
    name = "attention" if kv is None else "cross_attention"
    keys = library.spans(name, offsets, (qkv if kv is None else kv).shape[0], lengths)
    queries = keys
    if query_offsets is not None:
        asked = library.spans(name, query_offsets, qkv.shape[0])
        queries = [(start, n if m else 0) for (start, n), (_, m) in zip(asked, keys, strict=True)]
    if max((length for _, length in keys + queries), default=0) >= MAX_POSITION:
        faults.check_status(name, -5)
    return Spans(queries, keys)


def parts(qkv: Tensor, kv: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, [rows, H, D] each, as they lie in memory."""
    return qkv.unbind(1) if kv is None else (qkv, *kv.unbind(1))


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
    causal: bool = False,
) -> Tensor:
    """The specification of `attention`, one sequence after the other; differentiable, any floating type."""
    return reference_forward(qkv, None, None, offsets, lengths, Dropout(rng, sample_keys, site, p), scale, causal)


def cross_attention_reference(
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
    causal: bool = False,
) -> Tensor:
    """The specification of `cross_attention`, one sequence after the other; differentiable, any floating type."""
    return reference_forward(q, kv, query_offsets, offsets, lengths, Dropout(rng, sample_keys, site, p), scale, causal)


def reference_forward(
    qkv, kv, query_offsets, offsets, lengths, dropout: Dropout, scale: float | None, causal: bool = False
) -> Tensor:
    """[queries, H, D]; the tensors are those of the raw operators."""
    q, k, v = parts(qkv, kv)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for b, queries, keys in _rows(spans(qkv, kv, query_offsets, offsets, lengths)):
        mine, others, values = (x[rows].transpose(0, 1) for x, rows in ((q, queries), (k, keys), (v, keys)))
        probability = _probability(mine, others, scale, causal)
        if dropout.p > 0:
            probability = probability * _keep(dropout, b, probability) * philox.keep_scale(dropout.p)
        out[queries] = (probability @ values).transpose(0, 1)
    return out


def reference_backward(
    grad, qkv, kv, query_offsets, offsets, lengths, dropout: Dropout, scale: float, causal: bool = False
) -> list[Tensor]:
    """Gradients of qkv, or of q and kv."""
    q, k, v = parts(qkv, kv)
    grads = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
    for b, queries, keys in _rows(spans(qkv, kv, query_offsets, offsets, lengths)):
        places = queries, keys, keys
        mine, others, values = (x[rows].transpose(0, 1) for x, rows in zip((q, k, v), places, strict=True))
        probability = _probability(mine, others, scale, causal)
        keep = _keep(dropout, b, probability) if dropout.p > 0 else None
        found = _gradients(grad[queries].transpose(0, 1), mine, others, values, probability, keep, dropout.p, scale)
        for total, rows, part in zip(grads, places, found, strict=True):
            total[rows] = part.transpose(0, 1)
    return _joined(grads, kv)


def _probability(q: Tensor, k: Tensor, scale: float, causal: bool) -> Tensor:
    """[H, queries, keys] of one sequence."""
    scores = scale * (q @ k.mT)
    if causal:
        queries, keys = scores.shape[1:]
        hidden = torch.ones(queries, keys, dtype=torch.bool, device=q.device).triu(1 + abs(keys - queries))
        scores = scores.masked_fill(hidden, -torch.inf)
    return torch.softmax(scores, dim=-1)


def _rows(places: Spans):
    """Number, query rows and key rows of every sequence that has queries."""
    for b, ((query, queries), (key, keys)) in enumerate(zip(*places, strict=True)):
        if queries:
            yield b, slice(query, query + queries), slice(key, key + keys)


def _keep(dropout: Dropout, b: int, probability: Tensor) -> Tensor:
    heads, queries, keys = probability.shape
    return attention_keep_mask(
        dropout.rng, dropout.site, dropout.sample_keys[b : b + 1], heads, keys, dropout.p, queries
    )[0]


def _gradients(grad, q, k, v, probability, keep, p, scale) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from probabilities [..., queries, keys]."""
    dropped, grad_probability = probability, (grad @ v.mT).to(probability.dtype)
    if keep is not None:
        factors = keep * philox.keep_scale(p)
        dropped, grad_probability = probability * factors, grad_probability * factors
    shift = (probability * grad_probability).sum(-1, keepdim=True)
    grad_scores = (probability * (grad_probability - shift) * scale).to(q.dtype)
    return grad_scores @ k, grad_scores.mT @ q, dropped.to(q.dtype).mT @ grad


def _joined(grads: list[Tensor], kv: Tensor | None) -> list[Tensor]:
    """Gradients of q, k and v in the layout of the operands."""
    return [torch.stack(grads, 1)] if kv is None else [grads[0], torch.stack(grads[1:], 1)]


class _Cells:
    """Rows laid out as [B, S]: which row each cell reads, and which cells are real."""

    def __init__(self, places: list[tuple[int, int]], like: Tensor):
        starts, used = torch.tensor(places, device=like.device, dtype=torch.int64).reshape(-1, 2).unbind(1)
        self.longest = max((length for _, length in places), default=0)
        cell = torch.arange(self.longest, device=like.device)
        self.real = cell < used[:, None]
        self.row = starts[:, None] + cell
        self.rows = like.shape[0]

    def spread(self, packed: Tensor) -> Tensor:
        """[rows, H, D] to [B, H, S, D]; padding reads zero."""
        cells = packed[self.row.clamp(max=max(self.rows - 1, 0))]
        return cells.masked_fill_(~self.real[..., None, None], 0).transpose(1, 2)

    def collect(self, cells: Tensor) -> Tensor:
        """[B, H, S, D] back to [rows, H, D]; rows of no sequence are zero."""
        cells = cells.transpose(1, 2)
        packed = cells.new_zeros(self.rows, *cells.shape[2:])
        packed[self.row[self.real]] = cells[self.real]
        return packed


class _Layout:
    """The cells of queries and of keys."""

    def __init__(self, qkv, kv, query_offsets, offsets, lengths, causal):
        places = spans(qkv, kv, query_offsets, offsets, lengths)
        self.keys = _Cells(places.keys, qkv if kv is None else kv)
        self.queries = self.keys if query_offsets is None else _Cells(places.queries, qkv)
        self.seen = self.keys.real[:, None, None, :]  # [B, 1, 1 or queries, keys]
        if causal:
            apart = (self.queries.real.sum(1) - self.keys.real.sum(1)).abs()[:, None, None]
            query, key = (torch.arange(cells.longest, device=qkv.device) for cells in (self.queries, self.keys))
            self.seen = self.seen & (key <= query[:, None] + apart)[:, None]

    def spread(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries.spread(q), self.keys.spread(k), self.keys.spread(v)

    def keep(self, dropout: Dropout, heads: int) -> Tensor | None:
        """[B, H, queries, keys], None without dropout."""
        rng, sample_keys, site, p = dropout
        if p == 0:
            return None
        return attention_keep_mask(rng, site, sample_keys, heads, self.keys.longest, p, self.queries.longest)

    def probability(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """softmax(scale q k^T) over the keys that a query sees, in fp32."""
        scores = (q @ k.mT).float().mul_(scale)
        return scores.masked_fill_(~self.seen, torch.finfo(torch.float32).min).softmax(-1)


def padded_forward(
    qkv, kv, query_offsets, offsets, lengths, dropout: Dropout, scale: float, causal: bool = False
) -> Tensor:
    """`reference_forward` of the whole batch at once."""
    layout = _Layout(qkv, kv, query_offsets, offsets, lengths, causal)
    q, k, v = layout.spread(*parts(qkv, kv))
    keep = layout.keep(dropout, q.shape[1])
    if keep is None:
        mask = layout.seen | ~layout.queries.real[:, None, :, None]
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        out = (layout.probability(q, k, scale) * keep * philox.keep_scale(dropout.p)).to(v.dtype) @ v
    return layout.queries.collect(out)


def padded_backward(
    grad, qkv, kv, query_offsets, offsets, lengths, dropout: Dropout, scale: float, causal: bool = False
) -> list[Tensor]:
    """`reference_backward` of the whole batch at once."""
    layout = _Layout(qkv, kv, query_offsets, offsets, lengths, causal)
    q, k, v = layout.spread(*parts(qkv, kv))
    keep = layout.keep(dropout, q.shape[1])
    of_q, of_k, of_v = _gradients(
        layout.queries.spread(grad), q, k, v, layout.probability(q, k, scale), keep, dropout.p, scale
    )
    return _joined([layout.queries.collect(of_q), layout.keys.collect(of_k), layout.keys.collect(of_v)], kv)

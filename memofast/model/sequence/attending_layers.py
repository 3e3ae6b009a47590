"""Pre-norm transformer layers over rows of one modality that attend to rows of another, or to their own.

Source: Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops
from memofast.model.draws import Draws
from memofast.model.sequence.packed_rows import PackedRows

_MULTIPLE = 8  # of what `ops.attention` takes for the width of a head
Dropped = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class LayerOptions:
    """width, heads: of attention. Dropout: attention of its weights, embedding of what the layers read, inner after
    ReLU, residual of what a layer adds. causal: row i of n attends to no row of m after i + |n - m|. positions: whether
    rows have sines of their places."""

    width: int
    heads: int
    attention: float = 0.0
    embedding: float = 0.0
    inner: float = 0.0
    residual: float = 0.0
    causal: bool = True
    positions: bool = False

    @property
    def own(self) -> int:
        """Width of a head."""
        return self.width // self.heads


class EncoderLayer(nn.Module):
    """x + attention(norm(x)), then x + outer(relu(inner(norm(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        for layer in (self.qkv, self.attended, self.inner, self.outer):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """Layers whose rows attend to one another or, in every layer, to the same rows of another modality; LayerNorm after
    the last.

    Rows are times sqrt(width). Keys and values are dropped alike.
    """

    def __init__(self, options: LayerOptions, layers: int):
        super().__init__()
        self.options, self.width = options, options.width
        self.layers = nn.ModuleList(EncoderLayer(options.width) for _ in range(layers))
        self.norm = nn.LayerNorm(options.width)

    def forward(self, rows: PackedRows, draws: Draws, others: PackedRows | None = None) -> PackedRows:
        """others: attended to in every layer; None: the rows themselves, as they change."""
        hidden = self._embedded(rows, draws)
        every = self._keys(self._embedded(others, draws)) if others is not None else [None] * len(self.layers)
        for layer, kv in zip(self.layers, every, strict=True):
            normed = layer.norms[0](hidden)
            if kv is None:
                context = self._among(layer, normed, rows, draws)
            else:
                context = self._crossed(self._by_head(layer, normed, 0, 1), kv, rows, others, draws)
            hidden = self._after(layer, hidden, context, _dropping(rows, draws))
        return rows.with_values(self.norm(hidden))

    def last(self, rows: PackedRows, draws: Draws) -> Tensor:
        """Each sample's last row [B, C] after all layers, in which rows attend to one another; 0 where it has none.
        The last layer's other rows, which nothing reads, are not computed."""
        hidden = self._embedded(rows, draws)
        for layer in self.layers[:-1]:
            context = self._among(layer, layer.norms[0](hidden), rows, draws)
            hidden = self._after(layer, hidden, context, _dropping(rows, draws))
        layer, ends = self.layers[-1], rows.with_values(hidden).ends()
        normed = layer.norms[0](hidden)
        q = self._by_head(layer, rows.with_values(normed).ends().values, 0, 1)
        context = self._crossed(q, self._by_head(layer, normed, 1, 3), ends, rows, draws)
        ended = self._after(layer, ends.values, context, _dropping(ends, draws))
        return ends.with_values(self.norm(ended)).last()

    def _embedded(self, rows: PackedRows, draws: Draws) -> Tensor:
        values = rows.values * math.sqrt(self.width)
        if self.options.positions:
            # the original finds padding by a first column of 0
            placed = sines(rows.longest, self.width).to(values)[rows.places()]
            values = torch.addcmul(values, placed, (rows.values[:, :1] != 0).to(values.dtype))
        return rows.dropped(values, self.options.embedding, draws)

    def _keys(self, rows: Tensor) -> Tensor:
        """Keys and values [layers, N, 2, H, D], of one product: each layer's norm is a part of its weights."""
        normed = F.layer_norm(rows, (self.width,))
        scales, shifts = (torch.stack([getattr(one.norms[0], of) for one in self.layers]) for of in ("weight", "bias"))
        weights = torch.stack([one.qkv.weight[self.width :] for one in self.layers])
        biases = torch.stack([one.qkv.bias[self.width :] for one in self.layers])
        biases = torch.baddbmm(biases[..., None], weights, shifts[..., None]).mT
        normed = normed.expand(len(self.layers), -1, -1)
        return self._heads_of(torch.baddbmm(biases, normed, (weights * scales[:, None]).mT), 2)

    def _among(self, layer: EncoderLayer, normed: Tensor, rows: PackedRows, draws: Draws) -> Tensor:
        qkv = self._by_head(layer, normed, 0, 3)
        return ops.attention(qkv, rows.offsets, longest=rows.longest, **self._of_attention(draws))

    def _crossed(self, q: Tensor, kv: Tensor, rows: PackedRows, others: PackedRows, draws: Draws) -> Tensor:
        longest = max(rows.longest, others.longest)
        options = self._of_attention(draws)
        return ops.cross_attention(q[:, 0], kv, rows.offsets, others.offsets, longest=longest, **options)

    def _of_attention(self, draws: Draws) -> dict[str, Any]:
        """Its heads are padded, but not its scale."""
        options = self.options
        return {"scale": options.own**-0.5, "causal": options.causal, **draws.of_attention(options.attention)}

    def _after(self, layer: EncoderLayer, hidden: Tensor, context: Tensor, dropped: Dropped) -> Tensor:
        """Hidden rows [..., C] after a layer. context [..., H, D]: what attention gave."""
        options = self.options
        attended = layer.attended(context[..., : options.own].flatten(-2))
        hidden = hidden + dropped(attended, options.residual)
        inner = dropped(layer.inner(layer.norms[1](hidden)).relu_(), options.inner)
        return hidden + dropped(layer.outer(inner), options.residual)

    def _by_head(self, layer: EncoderLayer, rows: Tensor, first: int, past: int) -> Tensor:
        """Of queries, keys and values of rows [N, C] those from first on [N, past - first, H, D]."""
        own = slice(first * self.width, past * self.width)
        return self._heads_of(F.linear(rows, layer.qkv.weight[own], layer.qkv.bias[own]), past - first)

    def _heads_of(self, values: Tensor, parts: int) -> Tensor:
        """[..., parts * width] as [..., parts, H, D] with zeros in every head up to a multiple of 8."""
        return F.pad(values.unflatten(-1, (parts, self.options.heads, -1)), (0, -self.options.own % _MULTIPLE))


class SampleEncoder(Encoder):
    """Layers over values [B, C, width] in which a channel of a sample attends to that of the samples before it."""

    def forward(self, values: Tensor, draws: Draws, together: bool) -> Tensor:
        """together: whether samples attend to others; else each sees itself alone, whose attention is its own value.
        Returns: [B, C, width]."""
        hidden = draws.dropped(math.sqrt(self.width) * values, self.options.embedding)
        for layer in self.layers:
            normed = layer.norms[0](hidden)
            context = self._over_samples(layer, normed, draws) if together else self._alone(layer, normed)
            hidden = self._after(layer, hidden, context, draws.dropped)
        return self.norm(hidden)

    def _alone(self, layer: EncoderLayer, normed: Tensor) -> Tensor:
        value = F.linear(normed, layer.qkv.weight[2 * self.width :], layer.qkv.bias[2 * self.width :])
        return value.unflatten(-1, (self.options.heads, -1))

    def _over_samples(self, layer: EncoderLayer, normed: Tensor, draws: Draws) -> Tensor:
        heads, samples = self.options.heads, len(normed)
        q, k, v = layer.qkv(normed).unflatten(-1, (3, heads, -1)).permute(2, 1, 3, 0, 4)  # each [C, H, B, D]
        scores = q @ k.mT * self.options.own**-0.5
        if self.options.causal:
            later = torch.ones(samples, samples, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        weights = scores.softmax(-1)
        keep = draws.mask((samples, normed.shape[1], heads * samples), self.options.attention)
        if keep is not None:
            weights = weights * keep.unflatten(2, (heads, samples)).permute(1, 2, 0, 3).to(weights.dtype)
        return (weights @ v).permute(2, 0, 1, 3)


def sines(length: int, width: int) -> Tensor:
    """[L, C]: sines, then cosines, of places from 1; of an odd width the last column is 0. Source: tensor2tensor."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10000) / max(half - 1, 1)))
    angles = torch.arange(1, length + 1)[:, None] * rates
    return F.pad(torch.cat((angles.sin(), angles.cos()), 1), (0, width % 2))


def _dropping(rows: PackedRows, draws: Draws) -> Dropped:
    return lambda values, p: rows.dropped(values, p, draws)

"""Pre-norm transformer layers over rows of one modality that attend to rows of another, or to their own.

Source: Tsai et al., "Multimodal transformer for unaligned multimodal language sequences", ACL 2019, with positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.model.sequence.draws import Draws
from memofast.model.sequence.rows import Rows


@dataclass(frozen=True)
class LayerOptions:
    """width, heads: of attention. Dropout: attention of its weights, embedding of what the layers read, inner after
    ReLU, residual of what a layer adds. masked: a row i of L sees only the first i + 1 + |L - K| of K rows. positions:
    whether rows have sines of their places."""

    width: int
    heads: int
    attention: float = 0.0
    embedding: float = 0.0
    inner: float = 0.0
    residual: float = 0.0
    masked: bool = True
    positions: bool = True


class AttendingEncoder(nn.Module):
    """Layers whose queries are rows as they change, and whose keys are other rows as they came; LayerNorm after the
    last."""

    def __init__(self, options: LayerOptions, layers: int):
        super().__init__()
        self.options = options
        self.layers = nn.ModuleList(AttendingLayer(options) for _ in range(layers))
        self.norm = nn.LayerNorm(options.width)

    def forward(self, rows: Rows, keys: Rows | None, draws: Draws) -> Tensor:
        """Args: rows [B, L, C]; keys [B, K, C]; None: the rows themselves. Returns: [B, L, C]."""
        hidden, options = self._embedded(rows, draws), self.options
        others = None if keys is None else self._embedded(keys, draws)
        mask = seen(rows, rows if keys is None else keys, options.masked)
        for layer in self.layers:
            hidden = layer(hidden, others, mask, draws)
        return self.norm(hidden)

    def _embedded(self, rows: Rows, draws: Draws) -> Tensor:
        values = math.sqrt(self.options.width) * rows.values
        if self.options.positions:
            # the original finds padding by a first column of 0
            inside = rows.inside & (rows.values[..., 0] != 0)
            values = values + sines(values.shape[1], values.shape[2]).to(values) * inside[..., None]
        return draws.dropped(values, self.options.embedding)


class AttendingLayer(nn.Module):
    """x + Attn(LN(x), LN(keys)), then y + W relu(V LN(y))."""

    def __init__(self, options: LayerOptions):
        super().__init__()
        width = options.width
        self.options = options
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.intermediate = nn.Linear(width, 4 * width)
        self.output = nn.Linear(4 * width, width)
        self.inner_norm = nn.LayerNorm(width)
        for linear in (self.qkv, self.attention_output, self.intermediate, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, hidden: Tensor, keys: Tensor | None, mask: Tensor, draws: Draws) -> Tensor:
        """Args: hidden [B, L, C]; keys [B, K, C]; None: as hidden; mask [B, L, K] bool: which are seen."""
        options, normed = self.options, self.attention_norm(hidden)
        context = self._attended(normed, normed if keys is None else self.attention_norm(keys), mask, draws)
        hidden = hidden + draws.dropped(self.attention_output(context), options.residual)
        return self.further(hidden, draws)

    def alone(self, hidden: Tensor, draws: Draws) -> Tensor:
        """Of rows [..., C] each of which sees itself alone, whose attention is its own value."""
        width, normed = self.options.width, self.attention_norm(hidden)
        value = F.linear(normed, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :])
        hidden = hidden + draws.dropped(self.attention_output(value), self.options.residual)
        return self.further(hidden, draws)

    def further(self, hidden: Tensor, draws: Draws) -> Tensor:
        inner = draws.dropped(F.relu(self.intermediate(self.inner_norm(hidden))), self.options.inner)
        return hidden + draws.dropped(self.output(inner), self.options.residual)

    def _attended(self, queries: Tensor, keys: Tensor, mask: Tensor, draws: Draws) -> Tensor:
        width, heads = self.options.width, self.options.heads
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(queries, weight[:width], bias[:width]).unflatten(2, (heads, -1)).transpose(1, 2)
        k, v = F.linear(keys, weight[width:], bias[width:]).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        # what a row without any key attends to is 0
        blind = ~mask.any(2, keepdim=True)
        shown = (mask | blind)[:, None]
        keep = draws.mask((len(q), q.shape[2], k.shape[2] * heads), self.options.attention)
        if keep is None:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=shown)
        else:
            scores = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).masked_fill(~shown, -torch.inf)
            keep = keep.unflatten(2, (-1, heads)).permute(0, 3, 1, 2).to(scores.dtype)
            context = scores.softmax(3) * keep @ v
        return context.transpose(1, 2).flatten(2) * ~blind


def seen(rows: Rows, keys: Rows, masked: bool) -> Tensor:
    """[B, L, K] bool: which keys a row of its sample sees; none past its end."""
    shown = keys.inside[:, None].expand(-1, rows.values.shape[1], -1)
    if not masked:
        return shown
    place = torch.arange(rows.values.shape[1], device=shown.device)[:, None]
    key = torch.arange(keys.values.shape[1], device=shown.device)
    return shown & (key - place <= (rows.lengths - keys.lengths).abs()[:, None, None])


def sines(length: int, width: int) -> Tensor:
    """[L, C]: sines, then cosines, of places from 1; of an odd width the last column is 0. Source: tensor2tensor."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10000) / max(half - 1, 1)))
    angles = torch.arange(1, length + 1)[:, None] * rates
    return F.pad(torch.cat((angles.sin(), angles.cos()), 1), (0, width % 2))

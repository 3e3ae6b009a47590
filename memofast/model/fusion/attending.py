"""Attention between the vectors of one sample's modalities: of all to all, or of each to the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.fusion.attention import AttendingTokens, Attention, AttentionOverBatch
from memofast.model.fusion.fusion import CompatOptions, Fused, Fusion, side_by_side
from memofast.model.fusion.layers import CommonWidth


class SelfAttentionOptions(CompatOptions):
    """Of `SelfAttention`. width: of the fused vector; token_width: of the maps of the vectors that attend; dropout: of
    probabilities and of what is attended. compat: attention is over the samples of the batch, of the vectors side by
    side, and nothing but the fused vector has a width of its own."""

    kind: Literal["self_attention"]
    width: Width = 128
    token_width: Width = 128
    heads: Layers = 4
    dropout: Dropout = 0.1


class CrossAttentionOptions(CompatOptions):
    """Of `CrossAttention`; as of `self_attention`. compat: attention is over the samples of the batch, from a
    modality's vector to the others side by side; the fused vector is as wide as all together."""

    kind: Literal["cross_attention"]
    width: Width = 128
    token_width: Width = 128
    heads: Layers = 4
    dropout: Dropout = 0.1


class TokenFusion(nn.Module):
    """A linear map of the vectors [B, width] of a sample, by any names, after each has attended to all."""

    def __init__(self, widths: Mapping[str, int], width: int, token_width: int, heads: int, dropout: float):
        super().__init__()
        self.tokens = CommonWidth(widths, token_width, always=True)
        self.attending = AttendingTokens(token_width, heads, dropout)
        self.join = nn.Linear(len(widths) * token_width, width)

    def forward(self, vectors: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """Returns: [B, width]."""
        tokens = torch.stack(list(self.tokens(vectors).values()), 1)
        return self.join(self.attending(tokens, draws).flatten(1))


class SelfAttention(Fusion):
    """Attention of the vectors of a sample to one another, then a linear map of all of them."""

    def __init__(self, options: SelfAttentionOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat)
        self.compat, self.width, joined = options.compat, options.width, sum(widths.values())
        if self.compat:
            self.attention = AttentionOverBatch(joined, joined, options.heads)
            self.join = nn.Linear(joined, options.width)
        else:
            self.fusion = TokenFusion(self.widths, options.width, options.token_width, options.heads, options.dropout)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        if not self.compat:
            return Fused(self.fusion(vectors, draws))
        joined = side_by_side(vectors)
        return Fused(self.join(self.attention(joined, joined, draws)))


class CrossingOverBatch(nn.Module):
    """LN(x + attention) of each vector x over the batch to the other vectors side by side; all of them side by
    side."""

    def __init__(self, widths: Mapping[str, int], heads: int):
        super().__init__()
        rest = {name: sum(widths.values()) - width for name, width in widths.items()}
        self.attention = nn.ModuleDict(
            {name: AttentionOverBatch(width, rest[name], heads) for name, width in widths.items()}
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name, width in widths.items()})

    def forward(self, vectors: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """Args: vectors [B, width] by any names. Returns: [B, sum of widths]."""
        found = {}
        for name, one in vectors.items():
            rest = side_by_side({other: values for other, values in vectors.items() if other != name})
            found[name] = self.norms[name](one + self.attention[name](one, rest, draws))
        return side_by_side(found)


class CrossAttention(Fusion):
    """Attention of each vector of a sample to those of the other modalities, then a linear map of all of them."""

    least = 2

    def __init__(self, options: CrossAttentionOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat)
        self.options = options
        if options.compat:
            self.width = sum(widths.values())
            self.crossing = CrossingOverBatch(self.widths, options.heads)
            return
        self.width, token = options.width, options.token_width
        self.tokens = CommonWidth(self.widths, token, always=True)
        self.attention = nn.ModuleDict(
            {name: Attention(token, token, options.heads, options.dropout) for name in self.widths}
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(token) for name in self.widths})
        self.join = nn.Linear(len(widths) * token, options.width)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        if self.options.compat:
            return Fused(self.crossing(vectors, draws))
        tokens, found = self.tokens(vectors), {}
        for name, token in tokens.items():
            others = torch.stack([one for other, one in tokens.items() if other != name], 1)
            read = draws.dropped(self.attention[name](token[:, None], others, draws)[:, 0], self.options.dropout)
            found[name] = self.norms[name](token + read)
        return Fused(self.join(side_by_side(found)))

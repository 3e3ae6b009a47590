"""Of each modality what is its own and what it shares with the others, learnt apart, and joined.

Source: the fusion of shared and private features of emotion-recognition (MELD), there with attention over the samples
of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.fusion.attending import CrossingOverBatch, TokenFusion
from memofast.model.fusion.attention import AttentionOverBatch
from memofast.model.fusion.fusion import SORTED_ORDER, CompatOptions, Fused, Fusion, side_by_side
from memofast.model.fusion.layers import CommonWidth, GeluLayers
from memofast.model.fusion.routing import Router, RouterOptions, Weight

_PRIVATE_HEADS, _PRIVATE_DEPTH = 4, 2
_HEADS_A_MODALITY = 4  # of the original's shared and cross projectors
_PREDICTOR_DEPTH = 4
_CROSSING_HEADS = 8


class DisentangledOptions(CompatOptions):
    """Of `Disentangled`. private_width: of what is of one modality; shared_width: of what it shares with one other.
    width: of the fused vector, and of the maps of vectors where they are of several widths. heads: of attention between
    what is shared and what is private. noisy: see `experts`. alignment, reconstruction: weights of the losses.

    compat: attention is over the samples of the batch, and joins what is shared and what is private; the fused vector
    is as wide as both. Losses are of missing modalities too.
    """

    kind: Literal["disentangled"]
    private_width: Width = 64
    shared_width: Width = 32
    width: Width = 128
    heads: Layers = 4
    dropout: Dropout = 0.1
    noisy: bool = True
    alignment: Weight = 0.5
    reconstruction: Weight = 0.5


class Projector(nn.Module):
    """Layers over LN(x + W x); with compat W x is attention over the samples of a batch."""

    def __init__(self, width: int, outputs: int, depth: int, dropout: float, over_batch: int = 0):
        """Args: over_batch: heads of that attention; 0: a linear map."""
        super().__init__()
        self.mixing = AttentionOverBatch(width, width, over_batch) if over_batch else nn.Linear(width, width)
        self.over_batch, self.dropout = bool(over_batch), dropout
        self.norm = nn.LayerNorm(width)
        self.layers = GeluLayers(width, outputs, depth, dropout)

    def forward(self, values: Tensor, draws: Draws) -> Tensor:
        """Args: values [B, width]. Returns: [B, outputs]."""
        mixed = self.mixing(values, values, draws) if self.over_batch else self.mixing(values)
        return self.layers(draws.dropped(self.norm(values + mixed), self.dropout), draws)


class Private(nn.Module):
    """A projector of each modality, weighed by a router that does not change the vectors."""

    def __init__(self, names: Sequence[str], width: int, options: DisentangledOptions):
        super().__init__()
        heads = _PRIVATE_HEADS if options.compat else 0
        self.projectors = nn.ModuleDict(
            {
                name: Projector(width, options.private_width, _PRIVATE_DEPTH, options.dropout, heads)
                for name in names
            }
        )  # fmt: skip
        self.router = _router(len(names) * width, len(names), options)

    def forward(self, vectors: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """Args: vectors [B, width] by modality. Returns: [B, private_width]."""
        weights, _ = self.router(side_by_side(vectors).detach(), draws)
        own = torch.stack([self.projectors[name](one, draws) for name, one in vectors.items()], 1)
        return torch.einsum("bm,bmw->bw", weights, own)


class Shared(nn.Module):
    """One projector of all modalities, weighed as in `Private`, and by its losses like what each modality sees of the
    others: alignment with that, which is learnt by reconstruction of the modality's vector from it."""

    def __init__(self, names: Sequence[str], width: int, options: DisentangledOptions):
        super().__init__()
        self.compat, others, dropout = options.compat, len(names) - 1, options.dropout
        heads = _HEADS_A_MODALITY * self.compat
        self.width = options.shared_width * others
        self.projector = Projector(width, self.width, 2 * len(names), dropout, heads * len(names))
        self.crossing = nn.ModuleDict(
            {name: Projector(width, options.shared_width, 2**others, dropout, heads * others) for name in names}
        )
        self.predictors = nn.ModuleDict(
            {name: GeluLayers(self.width, width, _PREDICTOR_DEPTH, dropout) for name in names}
        )
        self.router = _router(len(names) * width, len(names), options)

    def forward(
        self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """[B, width] and the losses [B] `alignment` and `reconstruction`."""
        weights, _ = self.router(side_by_side(vectors).detach(), draws)
        shared = {name: self.projector(one, draws) for name, one in vectors.items()}
        losses = {"alignment": 0.0, "reconstruction": 0.0}
        for name, one in vectors.items():
            others = [other for other in vectors if other != name]
            seen = torch.stack([self.crossing[name](vectors[other], draws) for other in others], 1)
            counts = self._counts(name, others, there)
            apart = F.smooth_l1_loss(shared[name].view_as(seen), seen.detach(), reduction="none")
            again = self.predictors[name](seen.flatten(1), draws)
            lost = F.smooth_l1_loss(again, one.detach(), reduction="none")
            losses["alignment"] = losses["alignment"] + (apart.mean(2) * counts).mean(1)
            losses["reconstruction"] = losses["reconstruction"] + lost.mean(1) * counts.amax(1)
        return torch.einsum("bm,bmw->bw", weights, torch.stack(list(shared.values()), 1)), losses

    def _counts(self, name: str, others: Sequence[str], there: Mapping[str, Tensor]) -> Tensor:
        """[B, others]: 1 where a sample has both modalities; with compat everywhere."""
        both = torch.cat([there[name] & there[other] for other in others], 1)
        return torch.ones_like(both, dtype=torch.float32) if self.compat else both.float()


class Disentangled(Fusion):
    """What modalities share and what is private to them, which attend to one another, then a linear map of both."""

    least = 2
    order = SORTED_ORDER

    def __init__(self, options: DisentangledOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat)
        if options.compat and len(set(widths.values())) > 1:
            raise MemofastError(
                f"fusion.compat of disentangled needs vectors of one width, got {', '.join(map(str, widths.values()))}"
            )
        self.compat = options.compat
        weights = {name: getattr(options, name) for name in ("alignment", "reconstruction")}
        self.losses = {name: weight for name, weight in weights.items() if weight}
        self.common, names = CommonWidth(self.widths, options.width), list(self.widths)
        self.private = Private(names, self.common.width, options)
        self.shared = Shared(names, self.common.width, options)
        both = {"shared": self.shared.width, "private": options.private_width}
        if self.compat:
            self.width = sum(both.values())
            self.join = CrossingOverBatch(both, _CROSSING_HEADS)
        else:
            self.width = options.width
            self.join = TokenFusion(both, options.width, options.width, options.heads, options.dropout)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        common = self.common(vectors)
        private = self.private(common, draws)
        shared, losses = self.shared(common, there, draws)
        vector = self.join({"shared": shared, "private": private}, draws)
        return Fused(vector, {name: losses[name] for name in self.losses})


def _router(width: int, experts: int, options: DisentangledOptions) -> Router:
    return Router(width, experts, RouterOptions(noisy=options.noisy, balance=0), bias=False)

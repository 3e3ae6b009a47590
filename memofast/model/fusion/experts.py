"""Mixtures of experts over the vectors of all modalities, of each modality, of whole fusions, or of text and each other
modality.

Source of text-guided experts: "TGMoE: a text guided mixture-of-experts model for multimodal sentiment analysis",
IJACSA 15(8), 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.fusion.attention import AttendingTokens
from memofast.model.fusion.fusion import SORTED_ORDER, CompatOptions, Fused, Fusion, FusionOptions, side_by_side
from memofast.model.fusion.gates import GuidedOptions
from memofast.model.fusion.layers import CommonWidth, GeluLayers
from memofast.model.fusion.outer_product import with_one
from memofast.model.fusion.routing import ExpertOptions, Experts, Router, RouterOptions


class ExpertFusionOptions(FusionOptions, ExpertOptions):
    """Of `ExpertFusion`. width: of what experts are given and of the fused vector."""

    kind: Literal["experts"]
    width: Width = 128


class TextGuidedOptions(GuidedOptions, ExpertOptions):
    """Of `TextGuidedExperts`. width: of what experts are given and of the fused vector; token_width: of the maps of the
    vectors that attend; heads, attention_dropout: of the attention."""

    kind: Literal["text_guided_experts"]
    width: Width = 128
    token_width: Width = 128
    heads: Layers = 4
    attention_dropout: Dropout = 0.1
    active: Layers | None = 2


class ModalityExpertsOptions(CompatOptions, RouterOptions):
    """Of `ModalityExperts`. width: of the fused vector; depth, dropout: of the layers of an expert. compat: the joint
    expert gets its weight and is not run."""

    kind: Literal["modality_experts"]
    width: Width = 128
    depth: Layers = 1
    dropout: Dropout = 0.1


class FusionExpertsBase(CompatOptions, RouterOptions):
    """width: of the fused vector. compat: what is missing is left out by the router; what experts do is said by their
    own."""

    width: Width = 128


class ExpertFusion(Fusion):
    """Experts over a linear map of the vectors side by side."""

    def __init__(self, options: ExpertFusionOptions, widths: Mapping[str, int]):
        super().__init__(widths)
        self.width, self.losses = options.width, options.losses()
        self.join = nn.Linear(sum(widths.values()), options.width)
        self.experts = _experts(options.width, options)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        return Fused(*self.experts(self.join(side_by_side(vectors)), draws))


class TextGuidedExperts(Fusion):
    """Attention within each pair of the main modality and another, then experts over a linear map of all pairs."""

    least = 2

    def __init__(self, options: TextGuidedOptions, widths: Mapping[str, int]):
        super().__init__(widths)
        self.main, self.width, self.losses = options.main, options.width, options.losses()
        token, others = options.token_width, [name for name in widths if name != options.main]
        self.tokens = CommonWidth(widths, token, always=True)
        self.pairs = nn.ModuleDict(
            {name: AttendingTokens(token, options.heads, options.attention_dropout) for name in others}
        )
        self.join = nn.Linear(2 * len(others) * token, options.width)
        self.experts = _experts(options.width, options)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        tokens = self.tokens(vectors)
        guided = {
            name: attending(torch.stack((tokens[self.main], tokens[name]), 1), draws).flatten(1)
            for name, attending in self.pairs.items()
        }
        return Fused(*self.experts(self.join(side_by_side(guided)), draws))


class ModalityExperts(Fusion):
    """An expert of each modality's vector and a joint one of all, weighed by a router that sees all."""

    order = SORTED_ORDER

    def __init__(self, options: ModalityExpertsOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat)
        self.width, self.losses, joined = options.width, options.losses(), sum(widths.values())
        self.router = Router(joined, len(widths) + 1, options)
        self.experts = nn.ModuleDict(
            {name: GeluLayers(own, options.width, options.depth, options.dropout) for name, own in self.widths.items()}
        )
        self.joint = None if options.compat else GeluLayers(joined, options.width, options.depth, options.dropout)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        joined = side_by_side(vectors)
        weights, probabilities = self.router(joined, draws)
        outputs = [expert(vectors[name], draws) for name, expert in self.experts.items()]
        outputs += [] if self.joint is None else [self.joint(joined, draws)]
        return Fused(_weighed(weights[:, : len(outputs)], outputs), self.router.losses(probabilities))


class FusionExperts(Fusion):
    """Experts that are fusions themselves, each with a linear map after it, weighed by a router that sees all
    vectors."""

    order = SORTED_ORDER

    def __init__(self, options: FusionExpertsBase, widths: Mapping[str, int], experts: list[Fusion]):
        """Args: experts: of the same widths."""
        super().__init__(widths, compat=options.compat, placeholders=not options.compat)
        self.compat, self.width, self.losses = options.compat, options.width, options.losses()
        self.experts = nn.ModuleList(experts)
        self.maps = nn.ModuleList(nn.Linear(expert.width, options.width) for expert in experts)
        joined = sum(widths.values()) + len(widths) * self.compat
        self.router = Router(joined, len(experts), options, bias=not self.compat)

    def forward(self, vectors: Mapping[str, Tensor], present: Tensor, draws: Draws) -> Fused:
        """As `Fusion.forward`; what is missing is stood for by each expert itself."""
        routed = super().forward(vectors, present, draws)
        weights, probabilities = self.router(routed.vector, draws)
        fused = [expert(vectors, present, draws).vector for expert in self.experts]
        outputs = [own(one) for own, one in zip(self.maps, fused, strict=True)]
        return Fused(_weighed(weights, outputs), self.router.losses(probabilities))

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        """What the router sees."""
        if self.compat:  # a router of each modality, with a bias of its own, whose scores are added where it is there
            vectors = {name: torch.where(there[name], with_one(one), 0.0) for name, one in vectors.items()}
        return Fused(side_by_side(vectors))


def _experts(width: int, options: ExpertOptions) -> Experts:
    layers = [
        GeluLayers(width, width, options.depth, options.dropout) for kind in options.experts if kind == "layers"
    ]  # fmt: skip
    return Experts(width, layers, options)


def _weighed(weights: Tensor, outputs: list[Tensor]) -> Tensor:
    """The sum over E outputs [B, width] by weights [B, E]."""
    return torch.einsum("be,bew->bw", weights, torch.stack(outputs, 1))

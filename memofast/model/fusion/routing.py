"""Experts that a router weighs for each sample.

Source: Shazeer et al., "Outrageously large neural networks: the sparsely-gated mixture-of-experts layer", ICLR 2017;
zero, copy and constant experts: Jin et al., "MoE++", ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.bounds import Dropout, Layers
from memofast.model.draws import Draws
from memofast.sections import Section

BALANCE = "balance"
"""Name of the loss by which a router uses its experts alike."""

Weight = Annotated[float, Field(ge=0, le=1e4)]


class RouterOptions(Section):
    """noisy: scores get normal noise in training, of a width that is learnt. active: experts that a sample is given to,
    those of the highest weights; None: all. renormalise: weights of the active ones have sum 1. balance: weight of the
    loss of experts that are used unalike."""

    noisy: bool = True
    active: Layers | None = None
    renormalise: bool = True
    balance: Weight = 0.01

    @model_validator(mode="after")
    def _learns(self) -> RouterOptions:
        if self.active == 1 and self.renormalise:
            raise ValueError("active 1 with renormalise gives a weight of 1, by which no router learns; set it false")
        return self

    def losses(self) -> dict[str, float]:
        """As of `Fusion.losses`."""
        return {BALANCE: self.balance} if self.balance else {}


class ExpertOptions(RouterOptions):
    """experts: `layers`: linear layers, see depth, dropout; `copy`: what it is given; `zero`; `constant`: a learnt
    mixture of what it is given and of a learnt vector."""

    experts: list[Literal["layers", "copy", "zero", "constant"]] = Field(["layers"] * 4, min_length=1, max_length=4096)
    depth: Layers = 1
    dropout: Dropout = 0.1

    @model_validator(mode="after")
    def _computes(self) -> ExpertOptions:
        if "layers" not in self.experts:
            raise ValueError("experts need at least one of layers")
        return self


class Router(nn.Module):
    """Weights of experts for vectors [B, width]."""

    def __init__(self, width: int, experts: int, options: RouterOptions, *, bias: bool = True):
        super().__init__()
        if options.active is not None and options.active > experts:
            raise MemofastError(
                f"fusion.active {options.active} is more than its {experts} experts; set it to {experts} or less"
            )
        self.options = options
        self.scores = nn.Linear(width, experts, bias=bias)
        self.noise = nn.Linear(width, experts, bias=False) if options.noisy else None

    def forward(self, values: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """[B, experts] twice: the weights, 0 for experts that are not active, and the probabilities that they are
        chosen by."""
        scores = self.scores(values)
        if self.noise is not None and draws.active:
            scores = scores + draws.normal(scores.shape[1]).to(scores.dtype) * F.softplus(self.noise(values))
        probabilities = scores.softmax(1)
        active = self.options.active
        if active is None:
            return probabilities, probabilities
        kept, chosen = probabilities.topk(active, dim=1)
        if self.options.renormalise:
            kept = kept / kept.sum(1, keepdim=True)
        return torch.zeros_like(probabilities).scatter(1, chosen, kept), probabilities

    def losses(self, probabilities: Tensor) -> dict[str, Tensor]:
        """How unalike the experts are used by the samples of a batch, where that is learnt by."""
        return {BALANCE: squared_variation(probabilities.sum(0))} if self.options.balance else {}


class Constant(nn.Module):
    """a x + b c of a learnt vector c, where (a, b) = softmax(W x)."""

    def __init__(self, width: int):
        super().__init__()
        self.constant = nn.Parameter(torch.empty(width))
        self.share = nn.Linear(width, 2, bias=False)
        nn.init.normal_(self.constant)

    def forward(self, values: Tensor) -> Tensor:
        of_it, of_constant = self.share(values).softmax(1).split(1, 1)
        return of_it * values + of_constant * self.constant


class Experts(nn.Module):
    """The sum of what experts make of vectors [B, width], by the weights of a router.

    Every expert computes every sample, those of weight 0 too: a step then has one shape, and gives each a gradient.
    """

    def __init__(self, width: int, layers: Sequence[nn.Module], options: ExpertOptions):
        """Args: layers: modules that turn vectors [B, width] and draws into [B, outputs], one for each `layers` of
        `options.experts`; outputs is width where there are others."""
        super().__init__()
        self.kinds = tuple(options.experts)
        self.layers = nn.ModuleList(layers)
        self.constants = nn.ModuleList(Constant(width) for kind in self.kinds if kind == "constant")
        self.router = Router(width, len(self.kinds), options)

    def forward(self, values: Tensor, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """[B, outputs], and losses as of `Fused`."""
        weights, probabilities = self.router(values, draws)
        layers, constants, found = iter(self.layers), iter(self.constants), []
        for kind, weight in zip(self.kinds, weights.split(1, 1), strict=True):
            if kind == "layers":
                found.append(weight * next(layers)(values, draws))
            elif kind == "constant":
                found.append(weight * next(constants)(values))
            elif kind == "copy":
                found.append(weight * values)
        return sum(found), self.router.losses(probabilities)


def squared_variation(values: Tensor) -> Tensor:
    """The squared coefficient of variation of values [n], with the sample variance; 0 of a single one."""
    return values.var() / (values.mean().square() + 1e-10) if len(values) > 1 else values.sum() * 0.0

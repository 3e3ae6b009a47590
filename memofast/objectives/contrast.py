"""Contrast: two views of a sample, which differ in what dropout leaves out, are to be more alike than those of any two
samples of a micro-batch, or of those of all ranks.

Source: Gao et al., "SimCSE", EMNLP 2021; the learned temperature is CLIP's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.ranks import gathered, group_of_ranks
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose

_LARGEST_SCALE = 100.0  # of similarities, as in CLIP


class ContrastOptions(ObjectiveOptions):
    """temperature: at the beginning; it is learned. gather: `ranks`: samples are compared with those of the
    micro-batches of all ranks; None: of their own. With one process that is the same; validation compares those of a
    batch."""

    temperature: float = Field(0.05, gt=1 / _LARGEST_SCALE, le=1)
    gather: Literal["ranks"] | None = None


class Temperature(nn.Module):
    """What cosines are multiplied with before the softmax, kept as its logarithm."""

    def __init__(self, temperature: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, cosines: Tensor) -> Tensor:
        return cosines * self.log_scale.exp().clamp(max=_LARGEST_SCALE)


class ViewContrast(Objective):
    """Cross-entropy of finding a sample's second view among those of all samples of the micro-batch, by the cosine of
    pooled rows.

    Labels of its reads are the samples, counted among those read. With `gather: ranks` the second views are those of
    all ranks: the loss is that of one process whose micro-batch is the union of theirs.
    """

    Options = ContrastOptions
    metrics = ("accuracy",)
    predictor = "uniform guess"
    couples = True
    by_dropout = True

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"pooled": Head("pooled")}

    @property
    def gathers(self) -> bool:
        return self.options.gather == "ranks"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("any rows",)

    def eligible(self, facts: Facts) -> np.ndarray:
        """Samples of which there is more than [CLS]."""
        return self.rows_shown(facts).sum(1) > 1

    def can_be_of(self, batch: PackedBatch) -> bool:
        return True

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        samples = selected.nonzero().flatten()
        second = View(first.batch.select(samples), draw=1)
        for view, rows in ((first, first.batch.offsets[:-1][samples]), (second, second.batch.offsets[:-1])):
            view.reads[self.name] = Read("pooled", rows.to(torch.int64), torch.arange(len(rows), device=rows.device))
        return [second]

    def room(self, capacity: Capacity) -> list[Room]:
        return [Room(capacity, capacity.samples)] * 2

    def loss(self, outputs: Sequence[Tensor], views: Sequence[View], module: Temperature | None = None) -> LossSum:
        """A rank without samples takes part in gathering all the same. Validation, which wants no gradients, gathers
        nothing, as ranks may have different numbers of its batches."""
        group = group_of_ranks() if self.gathers and torch.is_grad_enabled() else None
        if group is None:
            return super().loss(outputs, views, module)
        if views[1].reads[self.name].weights is not None:
            raise ValueError(f"objective {self.name}: rows of ranks are not gathered in tensors of fixed shape")
        others = gathered(outputs[1].float(), group)
        if not len(others):
            return super().loss(outputs, views, module)
        return self.scored([outputs[0], others, *outputs[2:]], views, module)

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View], module: Temperature) -> LossSum:
        logits, read = self.found(outputs, views, module), views[0].reads[self.name]
        wanted = torch.arange(len(logits), device=logits.device)
        total = read.sum(F.cross_entropy(logits, wanted, reduction="none"))
        return LossSum(total, read.count, {"accuracy": read.sum(logits.detach().argmax(-1) == wanted)})

    def found(self, outputs: Sequence[Tensor], views: Sequence[View], module: Temperature) -> Tensor:
        """Logits of each sample over the second views of all [n, n]."""
        others = views[1].reads[self.name]
        one, two = (F.normalize(output.float(), dim=-1) for output in outputs[:2])
        with torch.autocast(one.device.type, enabled=False):  # which would round the product of fp32 rows
            logits = module(one @ two.T)
        if others.weights is not None:  # what fills a fixed capacity is nobody's other view but its own
            own = torch.eye(len(two), dtype=torch.bool, device=two.device)
            logits = logits.masked_fill((others.weights == 0) & ~own, float("-inf"))
        return logits

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        count = views[0].reads[self.name].count
        total = torch.tensor(count * math.log(max(count, 1)), dtype=torch.float32)
        return LossSum(total, count, {"accuracy": torch.tensor(1.0 if count else 0.0)})

    def module(self) -> Temperature:
        return Temperature(self.options.temperature)

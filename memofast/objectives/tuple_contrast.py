"""Contrast with swapped modalities: a sample's second view is to be told from those of the others of the micro-batch,
and from the sample itself with one modality of another's.

Source: Liu et al., "Contrastive Multimodal Fusion with TupleInfoNCE", ICCV 2021; MEmoBERT's notes plan it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.modality import MODALITIES
from memofast.data.view import Read, View
from memofast.objectives.contrast import ContrastOptions, Temperature, ViewContrast
from memofast.objectives.objective import LossSum, Room
from memofast.objectives.statistics import Statistics
from memofast.objectives.words import FEWEST_PIECES
from memofast.ops.philox import Purpose, below, sample_words
from memofast.sections import Section

_FEWEST = (FEWEST_PIECES, 1, 1)  # rows that a sample has of a modality, for it to be there


class Swapped(Section):
    """How often each modality is the one that is swapped, in relation to the others."""

    text: int = Field(1, ge=0, le=1000)
    visual: int = Field(1, ge=0, le=1000)
    speech: int = Field(1, ge=0, le=1000)

    @model_validator(mode="after")
    def _something(self) -> Swapped:
        if not self.text + self.visual + self.speech:
            raise ValueError("swaps nothing; give one modality more than 0, or use view_contrast")
        return self


class TupleContrastOptions(ContrastOptions):
    """temperature: at the beginning; it is learned. swapped: shares of the modalities."""

    swapped: Swapped = Swapped()


class TupleContrast(ViewContrast):
    """Cross-entropy of finding a sample's second view among those of all samples of the micro-batch and its own swapped
    view, by the cosine of pooled rows.

    Philox(seed, update, purpose, key): word 0 draws the modality to swap among those that a sample has; the samples
    that drew the same one pass their rows around in the order of word 1, so that no modality has more rows than before.
    Who is alone with its modality has no swapped view; metric `swapped` is the share of those that have one. Labels of
    its reads are the samples, counted among those read. With `gather: ranks` rows are passed around within a rank.
    """

    Options = TupleContrastOptions
    metrics = ("accuracy", "swapped")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("rows of two modalities", "one of them swapped")

    def eligible(self, facts: Facts) -> np.ndarray:
        """Samples of two modalities or more, one of which may be swapped."""
        there = self.rows_shown(facts) >= np.array(_FEWEST)
        return (there.sum(1) >= 2) & (there & (self._weights.numpy() > 0)).any(1)

    @property
    def _weights(self) -> Tensor:
        return torch.tensor([getattr(self.options.swapped, modality) for modality in MODALITIES])

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        further, batch = super().views(first, selected, rng, purpose), first.batch
        samples = selected.nonzero().flatten()
        modality, order = self._drawn(batch, samples, rng, purpose)
        giving = torch.arange(len(samples), device=samples.device).repeat(len(MODALITIES), 1)
        for number, givers in enumerate(giving):
            group = order[modality[order] == number]
            givers[group] = group.roll(1)
        swapped = (giving != giving[0].new_tensor(range(len(samples)))).any(0).nonzero().flatten()
        whose = {name: samples[givers[swapped]] for name, givers in zip(MODALITIES, giving, strict=True)}
        third = View(batch.select(samples[swapped], whose), draw=2)
        third.reads[self.name] = Read("pooled", third.batch.offsets[:-1].to(torch.int64), swapped)
        return [*further, third]

    def _drawn(self, batch: PackedBatch, samples: Tensor, rng: Tensor, purpose: Purpose) -> tuple[Tensor, Tensor]:
        """The modality that each sample [n] int64 swaps, and the order [n] in which they are passed around."""
        lengths = torch.stack([batch.offsets_of(modality).diff()[samples] for modality in MODALITIES], 1).cpu()
        ends = ((lengths >= torch.tensor(_FEWEST)) * self._weights).cumsum(1)
        words = sample_words(rng.cpu(), purpose, self.site, batch.sample_keys[samples].cpu())
        modality = (ends <= below(words[:, 0], ends[:, -1])[:, None]).sum(1)
        return modality.to(samples.device), words[:, 1].argsort(stable=True).to(samples.device)

    def room(self, capacity: Capacity) -> list[Room]:
        """Two rows of one sample and one of another are at most twice as many as the longest has."""
        first, second = super().room(capacity)
        return [first, second, second._replace(capacity=replace(capacity, longest=2 * capacity.longest))]

    def found(self, outputs: Sequence[Tensor], views: Sequence[View], module: Temperature) -> Tensor:
        """Logits [n, n + m]: over the second views of all, and over the swapped views, of which each has its own."""
        read, (one, swapped) = views[2].reads[self.name], (F.normalize(outputs[n].float(), dim=-1) for n in (0, 2))
        with torch.autocast(one.device.type, enabled=False):
            logits = module(one @ swapped.T)
        own = read.labels == torch.arange(len(one), device=one.device)[:, None]
        own = own if read.weights is None else own & (read.weights > 0)
        return torch.cat((super().found(outputs, views, module), logits.masked_fill(~own, float("-inf"))), 1)

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View], module: Temperature) -> LossSum:
        loss, read = super().scored(outputs, views, module), views[2].reads[self.name]
        loss.metrics["swapped"] = read.sum(torch.ones_like(read.labels))
        return loss

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        count, swapped = (views[number].reads[self.name].count for number in (0, 2))
        total = (count - swapped) * math.log(max(count, 1)) + swapped * math.log(count + 1)
        right = (count - swapped) / max(count, 1) + swapped / (count + 1)
        metrics = {"accuracy": torch.tensor(right), "swapped": torch.tensor(float(swapped))}
        return LossSum(torch.tensor(total, dtype=torch.float32), count, metrics)

"""Contrast of hidden rows: the prediction at a hidden face or stretch of speech is to be more like the row that was
there than like other rows that are hidden too.

Source: Li et al., "HERO", EMNLP 2020, whose masked frame modelling by noise-contrastive estimation takes rows that are
not hidden as wrong answers; MEmoBERT's notes plan it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.objective import LossSum
from memofast.objectives.spans import MaskedFeatures, SpanOptions
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose

_TEMPERATURE_OF_COSINES = 0.1


class FrameContrastOptions(SpanOptions):
    """among: the hidden rows that are wrong answers: those of the micro-batch, of the same sample, or of its other
    samples. similarity: of a predicted row and one that was there; temperature: what it is divided by; None: 0.1 for
    `cosine`, the root of the width for `dot`."""

    among: Literal["micro_batch", "sample", "other_samples"] = "micro_batch"
    similarity: Literal["dot", "cosine"] = "dot"
    temperature: float | None = Field(None, ge=1e-3, le=1e3)


class FrameContrast(MaskedFeatures):
    """Cross-entropy of finding the row that was hidden among other hidden ones. Labels of its reads are the first of
    the hidden rows within the modality that have the same values: rows that are equal are no wrong answers to one
    another.

    Metric `candidates` is the mean number of rows that a prediction was compared with.
    """

    Options = FrameContrastOptions
    metrics = ("accuracy", "candidates")
    predictor = "uniform guess"

    @property
    def couples(self) -> bool:
        return self.options.among != "sample"

    @property
    def head(self) -> str:
        return f"{self.modality}_contrast"

    @property
    def heads(self) -> Mapping[str, Head]:
        return {self.head: Head("rows", self.modality)}

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        further, read = super().views(first, selected, rng, purpose), first.reads[self.name]
        if read.count:
            rows, hidden = first.batch.rows_of(self.modality), read.labels
            same = torch.unique(rows[hidden], dim=0, return_inverse=True)[1]
            firsts = torch.full_like(hidden, len(rows)).scatter_reduce(0, same, hidden, "amin")
            read.labels = firsts[same]
        return further

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        prediction, view, read = outputs[0].float(), views[0], views[0].reads[self.name]
        width = prediction.shape[1]
        there = view.batch.rows_of(self.modality)[read.labels, :width].float()
        temperature = self.options.temperature or width**0.5
        if self.options.similarity == "cosine":
            prediction, there = F.normalize(prediction, dim=-1), F.normalize(there, dim=-1)
            temperature = self.options.temperature or _TEMPERATURE_OF_COSINES
        with torch.autocast(prediction.device.type, enabled=False):  # which would round the product of fp32 rows
            logits = prediction @ there.T / temperature
        candidates = self._candidates(view, read)
        logits, right = logits.masked_fill(~candidates, float("-inf")), torch.arange(len(there), device=there.device)
        total = read.sum(F.cross_entropy(logits, right, reduction="none"))
        chosen = read.sum(logits.detach().argmax(-1) == right)
        return LossSum(total, read.count, {"accuracy": chosen, "candidates": read.sum(candidates.sum(1))})

    def _candidates(self, view: View, read: Read) -> Tensor:
        """Which hidden rows each prediction is compared with, its own among them: [n, n] bool."""
        own = torch.eye(len(read.rows), dtype=torch.bool, device=read.rows.device)
        wrong = read.labels[:, None] != read.labels
        if self.options.among != "micro_batch":
            sample = torch.searchsorted(view.batch.offsets[1:].to(torch.int64), read.rows, right=True)
            wrong &= (sample[:, None] == sample) == (self.options.among == "sample")
        if read.weights is not None:  # entries that only fill a fixed capacity are nobody's wrong answer
            wrong &= read.weights > 0
        return own | wrong

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read = views[0].reads[self.name]
        candidates = self._candidates(views[0], read).sum(1)
        metrics = {"accuracy": read.sum(1 / candidates), "candidates": read.sum(candidates)}
        return LossSum(read.sum(candidates.log()), read.count, metrics)


class VisualContrast(FrameContrast):
    modality = "visual"


class SpeechContrast(FrameContrast):
    modality = "speech"

"""Masked faces and speech: predict hidden feature rows, or the soft emotion labels of hidden faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from memofast import ops
from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.errors import MemofastError
from memofast.model.heads import Head
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.ratios import Ratio
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose

_LONGEST_MIXED_SPAN = {"visual": 5, "speech": 6}


class SpanOptions(ObjectiveOptions):
    """Fields of `ops.SpanPolicy`; policy: its kind. ratio: None: 3/20, for spans of faces 1/5. length: None: 3, of
    `mixed` spans 5 for faces and 6 for speech."""

    policy: Literal["span", "independent", "single_span", "mixed"] = "span"
    ratio: Ratio | None = None
    length: int | None = Field(None, ge=1, le=2**15)
    dice: bool = False
    original: bool = False

    @model_validator(mode="after")
    def _all_takes_effect(self) -> SpanOptions:
        if self.ratio and not self.ratio[0]:
            raise ValueError("ratio 0 hides nothing; leave the objective out")
        idle = {
            "ratio": self.ratio is not None and self.policy == "mixed",
            "length": self.length is not None and self.policy in ("independent", "single_span"),
            "dice": self.dice and self.policy in ("independent", "single_span"),
            "original": self.original and self.policy == "independent",
        }
        for name in filter(idle.get, idle):
            raise ValueError(f"{name} has no effect with policy {self.policy}; leave it out")
        return self

    def span_policy(self, modality: str) -> ops.SpanPolicy:
        found: dict[str, Any] = {}
        if modality == "speech" or self.policy == "independent":
            found["ratio"] = (3, 20)
        if self.policy == "mixed":
            found["length"] = _LONGEST_MIXED_SPAN[modality]
        given = self.model_dump(exclude={"policy", "shows"}, exclude_none=True)
        return ops.SpanPolicy(kind=self.policy, **{**found, **given})


class MaskedFeatures(Objective):
    """Hides feature rows of one modality; what is predicted there, subclasses say. Labels of its reads are the rows
    within the modality.

    Source: MEmoBERT's mspan* and mr* tasks.
    """

    Options = SpanOptions
    modality: ClassVar[str]
    head: ClassVar[str]

    def __init__(self, name: str, options: SpanOptions):
        super().__init__(name, options)
        self.policy = options.span_policy(self.modality)

    @property
    def needs(self) -> tuple[str, ...]:
        return (f"{self.modality} rows",)

    def eligible(self, facts: Facts) -> np.ndarray:
        return facts.rows(self.modality) >= 1

    def can_be_of(self, batch: PackedBatch) -> bool:
        return batch.rows_of(self.modality) is not None

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch, features = first.batch, first.batch.rows_of(self.modality)
        offsets = batch.offsets_of(self.modality)
        if features is None:
            nothing = torch.zeros(0, dtype=torch.int64, device=offsets.device)
            first.reads[self.name] = Read(self.head, nothing, nothing)
            return []
        masked = ops.span_mask(
            offsets,
            batch.sample_keys,
            rng,
            self.policy,
            rows=features.shape[0],
            site=self.site,
            purpose=purpose,
            selected=selected,
            capacity=None if features.is_cpu else features.shape[0],
        )
        first.sources[self.modality] = merged_sources(first.sources.get(self.modality), masked.source)
        rows = masked.indices[: int(masked.count)]
        first.reads[self.name] = Read(self.head, batch.joint_rows(self.modality, rows), rows.to(torch.int64))
        return []

    def room(self, capacity: Capacity) -> list[Room]:
        return [Room(capacity, self.policy.capacity(capacity.of(self.modality), capacity.samples))]


def merged_sources(before: Tensor | None, source: Tensor) -> Tensor:
    """Sources of two objectives [rows] int32. They select disjoint samples, so that at most one of two entries differs
    from the row itself."""
    own = torch.arange(source.shape[0], dtype=torch.int32, device=source.device)
    return source if before is None else before + source - own


class FeatureRegression(MaskedFeatures):
    """Mean squared error between predicted and original feature row, over its true width."""

    predictor = "mean feature"

    @property
    def heads(self) -> Mapping[str, Head]:
        return {self.head: Head("rows", self.modality)}

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        (prediction,), read = outputs, views[0].reads[self.name]
        wanted = views[0].batch.rows_of(self.modality)[read.labels, : prediction.shape[1]].float()
        return LossSum(read.sum((prediction.float() - wanted).square().mean(-1)), read.count)

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read = views[0].reads[self.name]
        return self.loss([statistics.mean_row(self.modality).to(read.rows.device).expand(read.count, -1)], views)


class VisualRegression(FeatureRegression):
    modality = "visual"
    head = "visual_features"


class SpeechRegression(FeatureRegression):
    modality = "speech"
    head = "speech_features"


class VisualEmotion(MaskedFeatures):
    """KL(soft label || prediction) at hidden faces, divided by the number of classes (as MEmoBERT's mean over
    elements)."""

    modality = "visual"
    head = "visual_emotions"
    metrics = ("accuracy",)
    predictor = "mean label"

    @property
    def heads(self) -> Mapping[str, Head]:
        return {self.head: Head("soft_labels", self.modality)}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("visual rows", "soft_labels")

    def eligible(self, facts: Facts) -> np.ndarray:
        """Samples with faces, each of which has a soft label (its row is not all zero)."""
        with_faces = super().eligible(facts)
        if "soft_labels" not in facts.targets or not with_faces.any():
            return np.zeros_like(with_faces)
        return with_faces & facts.all_faces_labelled

    def can_be_of(self, batch: PackedBatch) -> bool:
        return super().can_be_of(batch) and "soft_labels" in batch.targets

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        (prediction,), read = outputs, views[0].reads[self.name]
        wanted = soft_labels(views[0].batch, read)
        if wanted.shape[1] != prediction.shape[1]:
            raise MemofastError(
                f"objective {self.name}: soft labels have {wanted.shape[1]} classes, the model's head "
                f"{prediction.shape[1]}; set model.visual_classes to {wanted.shape[1]}"
            )
        total = read.sum(divergence(wanted, prediction.float().log_softmax(-1)).sum(-1)) / prediction.shape[1]
        agrees = read.sum(prediction.detach().argmax(-1) == wanted.argmax(-1))
        return LossSum(total, read.count, {"accuracy": agrees})

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        view, read = views[0], views[0].reads[self.name]
        classes = view.batch.targets["soft_labels"].shape[1] if "soft_labels" in view.batch.targets else 1
        return self.loss([statistics.label_logs(classes).to(read.rows.device).expand(read.count, -1)], views)


def soft_labels(batch: PackedBatch, read: Read) -> Tensor:
    """The soft labels at what is read: [n, classes] fp32, summing to one."""
    labels = batch.targets["soft_labels"][read.labels].float()
    return labels / labels.sum(-1, keepdim=True).clamp(min=1e-12)


def divergence(wanted: Tensor, log_prediction: Tensor) -> Tensor:
    """Elements of KL(wanted || prediction), t (log t - log p), 0 where t = 0. Both [n, classes] fp32."""
    return torch.xlogy(wanted, wanted) - wanted * log_prediction

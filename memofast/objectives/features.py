"""Masked faces and speech: predict hidden feature rows, or the soft emotion labels of hidden faces."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from memofast import ops
from memofast.data.batch import PackedBatch
from memofast.errors import MemofastError
from memofast.objectives.objective import Inputs, LossSum, Objective, Targets
from memofast.ops.philox import Purpose


@dataclass(frozen=True)
class MaskedFeatures(Objective):
    """Hides feature rows of one modality; what is predicted there, subclasses say. Source: MEmoBERT's mspan* and mr* tasks."""

    policy: ops.SpanPolicy = field(default_factory=ops.SpanPolicy)

    def corrupt(
        self, batch: PackedBatch, inputs: Inputs, selected: Tensor | None, rng: Tensor, purpose: Purpose
    ) -> Targets:
        offsets = getattr(batch, f"{self.modality}_offsets")
        features = getattr(batch, self.modality)
        if features is None:
            nothing = torch.zeros(0, dtype=torch.int32, device=offsets.device)
            return Targets(self, nothing, nothing.to(torch.int64))
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
        name = f"{self.modality}_source"
        before = getattr(inputs, name)
        own = torch.arange(features.shape[0], dtype=torch.int32, device=offsets.device)
        # Objectives select disjoint samples, so at most one of two sources differs from the row itself.
        setattr(inputs, name, masked.source if before is None else before + masked.source - own)
        rows = masked.indices[: int(masked.count)]
        return Targets(self, rows, batch.joint_rows(self.modality, rows))


@dataclass(frozen=True)
class FeatureRegression(MaskedFeatures):
    """Mean squared error between predicted and original feature row, over its true width."""

    def _loss(self, prediction: Tensor, batch: PackedBatch, targets: Targets) -> LossSum:
        wanted = feature_rows(batch, targets, prediction.shape[1])
        return LossSum(targets.sum((prediction.float() - wanted).square().mean(-1)), targets.count)


@dataclass(frozen=True)
class VisualRegression(FeatureRegression):
    modality: ClassVar[str] = "visual"
    head: ClassVar[str] = "visual_features"


@dataclass(frozen=True)
class SpeechRegression(FeatureRegression):
    modality: ClassVar[str] = "speech"
    head: ClassVar[str] = "speech_features"


@dataclass(frozen=True)
class VisualEmotion(MaskedFeatures):
    """KL(soft label || prediction) at hidden faces, divided by the number of classes (as MEmoBERT's mean over elements)."""

    modality: ClassVar[str] = "visual"
    head: ClassVar[str] = "visual_emotions"
    needs: ClassVar[frozenset[str]] = frozenset({"soft_labels"})
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    def eligible_in(self, batch: PackedBatch) -> Tensor:
        """Samples with faces, each of which has a soft label (its row is not all zero)."""
        eligible = super().eligible_in(batch)
        if batch.visual is None or "soft_labels" not in batch.targets:
            return torch.zeros_like(eligible)
        unlabelled = batch.targets["soft_labels"].float().sum(-1) <= 0
        before = torch.cat((unlabelled.new_zeros(1, dtype=torch.int64), unlabelled.cumsum(0)))
        offsets = batch.visual_offsets.to(torch.int64)
        return eligible & (before[offsets[1:]] == before[offsets[:-1]])

    def _loss(self, prediction: Tensor, batch: PackedBatch, targets: Targets) -> LossSum:
        wanted = soft_labels(batch, targets)
        if wanted.shape[1] != prediction.shape[1]:
            raise MemofastError(
                f"objective {self.name}: soft labels have {wanted.shape[1]} classes, the model's head {prediction.shape[1]}; "
                f"set model.visual_classes to {wanted.shape[1]}"
            )
        total = targets.sum(divergence(wanted, prediction.float().log_softmax(-1)).sum(-1)) / prediction.shape[1]
        agrees = targets.sum(prediction.detach().argmax(-1) == wanted.argmax(-1))
        return LossSum(total, targets.count, {"accuracy": agrees})


def feature_rows(batch: PackedBatch, targets: Targets, width: int) -> Tensor:
    """The original feature rows at the targets: [n, width] fp32, without padding."""
    return getattr(batch, targets.objective.modality)[targets.rows.to(torch.int64), :width].float()


def soft_labels(batch: PackedBatch, targets: Targets) -> Tensor:
    """The soft labels at the targets: [n, classes] fp32, summing to one."""
    labels = batch.targets["soft_labels"][targets.rows.to(torch.int64)].float()
    return labels / labels.sum(-1, keepdim=True).clamp(min=1e-12)


def divergence(wanted: Tensor, log_prediction: Tensor) -> Tensor:
    """Elements of KL(wanted || prediction), t (log t - log p), 0 where t = 0. Both [n, classes] fp32."""
    return torch.xlogy(wanted, wanted) - wanted * log_prediction

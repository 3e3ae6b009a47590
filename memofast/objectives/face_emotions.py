"""Hidden faces: predict their soft emotion labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, xlogy

from memofast.data.batch import PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.errors import MemofastError
from memofast.model.heads import Head
from memofast.objectives.objective import LossSum
from memofast.objectives.spans import MaskedFeatures
from memofast.objectives.statistics import Statistics


class LabelledFaces(MaskedFeatures):
    """Hides faces of samples whose every face has a soft label."""

    modality = "visual"

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


class VisualEmotion(LabelledFaces):
    """KL(soft label || prediction) at hidden faces, divided by the number of classes (as MEmoBERT's mean over
    elements)."""

    head = "visual_emotions"
    metrics = ("accuracy",)
    predictor = "mean label"

    @property
    def heads(self) -> Mapping[str, Head]:
        return {self.head: Head("soft_labels", self.modality)}

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
    return xlogy(wanted, wanted) - wanted * log_prediction

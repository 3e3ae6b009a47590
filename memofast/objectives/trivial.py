"""Predictors that look at no input: what an objective must beat to have learned anything."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from memofast.data.batch import PackedBatch
from memofast.objectives.corruption import Corruption
from memofast.objectives.features import FeatureRegression, VisualEmotion
from memofast.objectives.objective import LossSum, Objective, Targets


class Trivial:
    """Word frequencies, mean feature row and mean soft label of the training data, scored on the same targets as the model.

    Args: vocab_size: of the model; widths: true width of a feature row per modality (`visual`, `speech`).
    """

    def __init__(self, vocab_size: int, widths: Mapping[str, int]):
        self.words = torch.ones(vocab_size, dtype=torch.float64)  # one seen of each: add-one smoothing
        self.sums = {modality: torch.zeros(width, dtype=torch.float64) for modality, width in widths.items()}
        self.rows = dict.fromkeys(widths, 0)
        self.labels: Tensor | None = None

    def fit(self, batch: PackedBatch) -> None:
        """Add a batch of training data."""
        pieces = batch.token_ids[batch.word_ids >= 0].cpu().to(torch.int64)
        self.words += torch.bincount(pieces, minlength=self.words.numel())
        for modality, total in self.sums.items():
            features = getattr(batch, modality)
            if features is not None:
                used = features[: int(getattr(batch, f"{modality}_offsets")[-1]), : total.numel()]
                total += used.sum(0, dtype=torch.float64).cpu()
                self.rows[modality] += used.shape[0]
        if (labels := batch.targets.get("soft_labels")) is not None:
            added = labels[: int(batch.visual_offsets[-1])].sum(0, dtype=torch.float64).cpu()
            self.labels = added if self.labels is None else self.labels + added

    def evaluate(self, batch: PackedBatch, corruption: Corruption) -> dict[str, LossSum]:
        """The losses of the trivial predictors at the targets of a corruption, without gradients."""
        return {name: self._score(targets.objective, batch, targets) for name, targets in corruption.targets.items()}

    def _score(self, objective: Objective, batch: PackedBatch, targets: Targets) -> LossSum:
        device = targets.rows.device
        if isinstance(objective, FeatureRegression):
            mean = self.sums[objective.modality] / max(self.rows[objective.modality], 1)
            prediction = mean.float().to(device).expand(targets.count, -1)
        elif isinstance(objective, VisualEmotion):
            prediction = _log_shares(self._label_sums(batch)).to(device).expand(targets.count, -1)
        else:
            prediction = _log_shares(self.words).to(device).expand(targets.count, -1)
        return objective.loss(prediction, batch, targets)

    def _label_sums(self, batch: PackedBatch) -> Tensor:
        """Summed soft labels per class; all alike where the training data had none."""
        if self.labels is not None:
            return self.labels
        given = batch.targets.get("soft_labels")
        return torch.ones(1 if given is None else given.shape[1], dtype=torch.float64)


def _log_shares(counts: Tensor) -> Tensor:
    """Log of the share of each class, fp32; classes never seen count as 1e-6 of one row."""
    counts = counts.clamp(min=1e-6)
    return (counts / counts.sum()).log().float()

"""What is counted of training data, for predictors that look at no input."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from memofast.data.batch import PackedBatch

_OF_SAMPLES = {"label", "emotions"}


class Statistics:
    """Word frequencies, mean feature row, mean soft label, and what is known of each sample, of a corpus's training
    data.

    Args: words: of the vocabulary; widths: true width of a feature row per modality (`visual`, `speech`).
    """

    def __init__(self, words: int, widths: Mapping[str, int]):
        self._words = torch.ones(words, dtype=torch.float64)  # one seen of each: add-one smoothing
        self._sums = {modality: torch.zeros(width, dtype=torch.float64) for modality, width in widths.items()}
        self._rows = dict.fromkeys(widths, 0)
        self._labels: Tensor | None = None
        self._samples: dict[str, list[Tensor]] = {}

    def add(self, batch: PackedBatch) -> None:
        """Count a batch of training data."""
        pieces = batch.token_ids[batch.word_ids >= 0].cpu().to(torch.int64)
        self._words += torch.bincount(pieces, minlength=self._words.numel())
        for modality, total in self._sums.items():
            features = batch.rows_of(modality)
            if features is not None:
                used = features[: int(batch.offsets_of(modality)[-1]), : total.numel()]
                total += used.sum(0, dtype=torch.float64).cpu()
                self._rows[modality] += used.shape[0]
        if (labels := batch.targets.get("soft_labels")) is not None:
            added = labels[: int(batch.visual_offsets[-1])].sum(0, dtype=torch.float64).cpu()
            self._labels = added if self._labels is None else self._labels + added
        for name in _OF_SAMPLES & batch.targets.keys():
            self._samples.setdefault(name, []).append(batch.targets[name].cpu().clone())

    def word_logs(self) -> Tensor:
        """Log of the share of each word piece [words] fp32."""
        return _log_shares(self._words)

    def mean_row(self, modality: str) -> Tensor:
        """Mean feature row [width] fp32."""
        return (self._sums[modality] / max(self._rows[modality], 1)).float()

    def label_logs(self, classes: int) -> Tensor:
        """Log of the mean soft label [classes] fp32; all classes alike where the training data had none."""
        sums = torch.ones(classes, dtype=torch.float64) if self._labels is None else self._labels
        return _log_shares(sums)

    def target(self, name: str) -> Tensor | None:
        """`label` [n] int64 or `emotions` [n, classes] of the training samples, as packed; None where they have
        none."""
        return torch.cat(self._samples[name]) if name in self._samples else None


def _log_shares(counts: Tensor) -> Tensor:
    """Log of the share of each class, fp32; classes never seen count as 1e-6 of one row."""
    counts = counts.clamp(min=1e-6)
    return (counts / counts.sum()).log().float()

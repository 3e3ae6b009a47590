"""What is counted of training data, for predictors that look at no input."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from memofast.data.batch import PackedBatch

CLASSES = ("lexicon", "part_of_speech", "polarity", "label")  # targets that name a class of each piece or sample
_OF_SAMPLES = {"label", "emotions"}


class Statistics:
    """Word frequencies, mean feature row, mean soft label, how often each class of a word or sample is, and what is
    known of each sample, of a corpus's training data.

    Args: words: of the vocabulary; widths: true width of a feature row per modality (`visual`, `speech`).
    """

    def __init__(self, words: int, widths: Mapping[str, int]):
        self._words = torch.ones(words, dtype=torch.float64)  # one seen of each: add-one smoothing
        self._sums = {modality: torch.zeros(width, dtype=torch.float64) for modality, width in widths.items()}
        self._rows = dict.fromkeys(widths, 0)
        self._labels: Tensor | None = None
        self._classes: dict[str, Tensor] = {}
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
        for name in CLASSES:
            if (classes := batch.targets.get(name)) is not None:
                known = classes[(classes >= 0) & (batch.word_ids >= 0 if name != "label" else True)].cpu()
                self._classes[name] = _sum(torch.bincount(known), self._classes.get(name))
        if (emotions := batch.targets.get("emotions")) is not None:
            sums = emotions.sum(0, dtype=torch.float64).cpu()
            self._classes["emotions"] = _sum(sums, self._classes.get("emotions"))
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

    def class_logs(self, name: str, classes: int) -> Tensor:
        """Log of the share of each class of a target [classes] fp32; all alike where the training data had none."""
        counts = torch.zeros(classes, dtype=torch.float64)
        found = self._classes.get(name, counts)[:classes]
        counts[: len(found)] = found
        return _log_shares(counts)

    def target(self, name: str) -> Tensor | None:
        """`label` [n] int64 or `emotions` [n, classes] of the training samples, as packed; None where they have
        none."""
        return torch.cat(self._samples[name]) if name in self._samples else None


def _sum(counts: Tensor, before: Tensor | None) -> Tensor:
    """Counts of classes added, of which either may know more."""
    total = torch.zeros(max(len(counts), 0 if before is None else len(before)), dtype=torch.float64)
    total[: len(counts)] += counts
    if before is not None:
        total[: len(before)] += before
    return total


def _log_shares(counts: Tensor) -> Tensor:
    """Log of the share of each class, fp32; classes never seen count as 1e-6 of one row."""
    counts = counts.clamp(min=1e-6)
    return (counts / counts.sum()).log().float()

"""Whether probabilities are what they say: expected calibration error, Brier score, and how often each confidence is
right."""

from __future__ import annotations

from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import scored

BINS = 15


def calibration(predictions: Predictions, bins: int = BINS) -> dict[str, Any]:
    """Calibration over the samples whose truth is known, as JSON can hold it.

    `single`: the confidence of a sample is the probability of the class that is named, and it is right where that is
    the true one. `multi`: every pair of sample and label is one answer, its confidence is the label's probability, and
    it is right where the label is true.

    Returns: `ece`: mean over answers of the distance between confidence and accuracy of their bin (Guo et al. 2017);
        `brier`: mean over samples of the squared distance between probabilities and truth, summed over classes (0 to 2
        for `single`); `confidence` and `accuracy`: means;
        `answers`, `bins`: see `reliability`.
    Raises: `MemofastError` for `regression`, for probabilities outside 0 to 1, where no truth is known or a score is
        not finite.
    """
    confidence, right, squares = _answers(predictions)
    table = reliability(confidence, right, bins)
    distances = [row["answers"] * abs(row["confidence"] - row["accuracy"]) for row in table if row["answers"]]
    return {
        "ece": float(sum(distances) / len(confidence)),
        "brier": float(squares.mean()),
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
        "answers": len(confidence),
        "bins": table,
    }


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[dict[str, float | int | None]]:
    """Answers in bins of equal width: `above`, `up_to`, `answers`, mean `confidence` and share that is right
    (`accuracy`), None where empty.

    A confidence at an edge belongs to the bin below; 0 to the first. confidence [n] float, right [n] bool.
    """
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=one, minlength=bins) for one in (confidence, right)]
    return [
        {
            "above": number / bins,
            "up_to": (number + 1) / bins,
            "answers": int(count),
            "confidence": float(sums[0][number] / count) if count else None,
            "accuracy": float(sums[1][number] / count) if count else None,
        }
        for number, count in enumerate(counts)
    ]


def _answers(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence [answers] float64, right [answers] bool, squared distance [samples] float64."""
    if predictions.kind == "regression":
        raise MemofastError("calibration needs class probabilities, these predictions are values: leave it out")
    known = scored(predictions)
    probabilities = known.scores.astype(np.float64)
    if probabilities.min() < 0 or probabilities.max() > 1 + 1e-5:
        raise MemofastError("calibration needs probabilities from 0 to 1; these scores are others: apply softmax first")
    if known.kind == "multi":
        true = known.truth > 0
        return probabilities.ravel(), true.ravel(), ((probabilities - true) ** 2).sum(1)
    true = known.truth[:, None] == np.arange(len(known.classes))
    return probabilities.max(1), known.named == known.truth, ((probabilities - true) ** 2).sum(1)

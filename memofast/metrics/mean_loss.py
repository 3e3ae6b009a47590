"""The mean loss of predictions, as training minimises it without weights and smoothing."""

import numpy as np

from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import scored

_LEAST = float(np.finfo(np.float32).tiny)  # probability, so that a loss is a number


def mean_loss(predictions: Predictions, error: str = "absolute") -> float:
    """Mean over samples whose truth is known: `single`, the cross-entropy; `multi`, the binary one, over classes too;
    `regression`, the `absolute`, `squared` or `smooth` L1 error.

    Raises: `MemofastError` where no truth is known, or a score is not finite.
    """
    known = scored(predictions)
    scores = known.scores.astype(np.float64)
    if known.kind == "single":
        return float(-np.log(np.maximum(scores[np.arange(len(scores)), known.truth], _LEAST)).mean())
    if known.kind == "multi":
        said = np.where(known.truth > 0, scores, 1 - scores)
        return float(-np.log(np.maximum(said, _LEAST)).mean())
    off = np.abs(scores - known.truth)
    losses = {"absolute": off, "squared": off**2, "smooth": np.where(off < 1, off**2 / 2, off - 0.5)}
    return float(losses[error].mean())

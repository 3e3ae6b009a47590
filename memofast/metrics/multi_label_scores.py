"""How well any number of labels per sample is named, by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def multi_label_scores(truth: np.ndarray, named: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Scores of named against true labels, both [n, classes] of 0 and 1, as JSON can hold them.

    macro_f1: mean over the labels that occur in the truth. micro_f1: over all. jaccard: mean over samples of shared
    labels by labels in either; 1 where neither has any. f1: by label that occurs. supports: samples by label. named:
    how often each label was named.
    """
    from sklearn.metrics import f1_score, jaccard_score

    truth, named = truth.astype(np.int64), named.astype(np.int64)
    per_label = f1_score(truth, named, average=None, zero_division=0)
    present = truth.any(0)
    return {
        "samples": len(truth),
        "macro_f1": float(per_label[present].mean()) if present.any() else 0.0,
        "micro_f1": float(f1_score(truth, named, average="micro", zero_division=0)),
        "jaccard": float(jaccard_score(truth, named, average="samples", zero_division=1)),
        "f1": {name: float(value) for name, value, true in zip(classes, per_label, present, strict=True) if true},
        "supports": dict(zip(classes, truth.sum(0).tolist(), strict=True)),
        "named": dict(zip(classes, named.sum(0).tolist(), strict=True)),
    }

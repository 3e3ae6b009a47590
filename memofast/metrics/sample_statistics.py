"""Metrics as functions of sums over samples, so that thousands of resamples are one matrix product.

Every metric here equals that of `class_scores`, `multi_label_scores` or `regression_scores`; the tests compare them.
"""

from __future__ import annotations

import numpy as np

from memofast.errors import MemofastError
from memofast.metrics.predictions import Predictions
from memofast.metrics.regression_scores import CLIPS, rounded

METRICS = {
    "single": ("wa", "ua", "weighted_f1", "macro_f1"),
    "multi": ("macro_f1", "micro_f1", "jaccard"),
    "regression": (
        "mae", "corr", "has0_acc2", "has0_f1", "has0_f1_lab", "non0_acc2", "non0_f1", "non0_f1_lab",
        "acc3", "acc5", "acc7",
    ),
}  # fmt: skip
LOWER_IS_BETTER = ("mae",)
NAMES = {
    "wa": "WA",
    "ua": "UA",
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "jaccard": "Jaccard",
    "mae": "MAE",
    "corr": "Corr",
    "has0_acc2": "Acc-2 has0",
    "has0_f1": "F1 has0",
    "has0_f1_lab": "F1 has0 (lab order)",
    "non0_acc2": "Acc-2 non0",
    "non0_f1": "F1 non0",
    "non0_f1_lab": "F1 non0 (lab order)",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
    "acc7": "Acc-7",
}
_CONSTANT = 1e-10  # share of the second moment below which a resample's variance is rounding


def scored(predictions: Predictions) -> Predictions:
    """The samples that can be scored: those whose truth is known.

    Raises: `MemofastError` where there is none, or where a score is not finite.
    """
    known = predictions.known
    if not known.ids:
        raise MemofastError(
            f"none of {len(predictions.ids)} samples has a known truth; evaluate a split that has labels"
        )
    finite = np.isfinite(known.scores).reshape(len(known.ids), -1).all(1)
    if not finite.all():
        bad = [known.ids[i] for i in np.flatnonzero(~finite)]
        raise MemofastError(
            f"predictions of {len(bad)} samples are not finite ({', '.join(bad[:4])}); check their features"
        )
    return known


def metrics_of(predictions: Predictions) -> dict[str, float]:
    """The metrics of the kind (`METRICS`) over samples whose truth is known; NaN where undefined. Raises: as
    `scored`."""
    metrics = metrics_of_sums(predictions.kind, sample_statistics(predictions).sum(0))
    return {name: float(value) for name, value in metrics.items()}


def sample_statistics(predictions: Predictions) -> np.ndarray:
    """What metrics need of each sample [n, statistics] float64; they are functions of these columns' sums."""
    known = scored(predictions)
    ones = np.ones((len(known.ids), 1))
    if known.kind == "single":
        every = np.arange(len(known.classes))
        return np.hstack([ones, _hits(known.truth[:, None] == every, known.named[:, None] == every)])
    if known.kind == "multi":
        true, named = known.truth > 0, known.named > 0
        either = (true | named).sum(1)
        jaccard = np.where(either, (true & named).sum(1) / np.maximum(either, 1), 1.0)
        return np.hstack([ones, jaccard[:, None], _hits(true, named)])
    return np.hstack([ones, _regression_statistics(known.truth, known.scores)])


def metrics_of_sums(kind: str, sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics [...] of sums [..., statistics] by name; NaN where undefined."""
    count, rest = sums[..., 0], sums[..., 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "single":
            return _class_metrics(count, *np.split(rest, 3, -1))
        if kind == "multi":
            hit, true, named = np.split(rest[..., 1:], 3, -1)
            both = (true + named).sum(-1)
            return {
                "macro_f1": _mean_where(true > 0, _f1(hit, true, named)),
                "micro_f1": np.where(both > 0, 2 * hit.sum(-1) / both, 0.0),
                "jaccard": rest[..., 0] / count,
            }
        return _regression_metrics(count, rest)


def class_f1_of_sums(kind: str, sums: np.ndarray) -> np.ndarray:
    """F1 of each class [..., classes] of `single` and `multi`; NaN for a class that does not occur in the truth."""
    hit, true, named = np.split(sums[..., 1 if kind == "single" else 2 :], 3, -1)
    with np.errstate(invalid="ignore"):
        return np.where(true > 0, _f1(hit, true, named), np.nan)


def _hits(true: np.ndarray, named: np.ndarray) -> np.ndarray:
    """By class: rightly named, true, named [n, 3 classes]."""
    return np.hstack([true & named, true, named]).astype(np.float64)


def _class_metrics(count, hit, true, named) -> dict[str, np.ndarray]:
    f1 = _f1(hit, true, named)
    return {
        "wa": hit.sum(-1) / count,
        "ua": _mean_where(true > 0, hit / true),
        "weighted_f1": (f1 * true).sum(-1) / count,
        "macro_f1": _mean_where(true > 0, f1),
    }


def _f1(hit, true, named) -> np.ndarray:
    return np.where(true + named > 0, 2 * hit / (true + named), 0.0)


def _mean_where(present: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean over present classes; 0 where there is none."""
    return np.where(present, values, 0.0).sum(-1) / np.maximum(present.sum(-1), 1)


def _regression_statistics(truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    true, value = truth.astype(np.float64), values.astype(np.float64)
    x, y = true - true.mean(), value - value.mean()  # centred, or the variance would drown in rounding
    halves = [_halves(truth >= 0, values >= 0), _halves(truth > 0, values > 0) * (truth != 0)[:, None]]
    equal = [rounded(truth, clip) == rounded(values, clip) for clip in CLIPS.values()]
    return np.column_stack([np.abs(true - value), x, y, x * x, y * y, x * y, *halves, *equal])


def _halves(true: np.ndarray, named: np.ndarray) -> np.ndarray:
    return _hits(np.column_stack([~true, true]), np.column_stack([~named, named]))


def _regression_metrics(count: np.ndarray, rest: np.ndarray) -> dict[str, np.ndarray]:
    error, x, y, xx, yy, xy = np.moveaxis(rest[..., :6], -1, 0)
    spread_x, spread_y = count * xx - x * x, count * yy - y * y
    varies = (spread_x > _CONSTANT * count * xx) & (spread_y > _CONSTANT * count * yy)
    corr = (count * xy - x * y) / np.sqrt(np.where(varies, spread_x * spread_y, np.nan))
    metrics = {"mae": error / count, "corr": np.clip(corr, -1, 1)}
    for name, columns in (("has0", rest[..., 6:12]), ("non0", rest[..., 12:18])):
        hit, true, named = np.split(columns, 3, -1)
        metrics[f"{name}_acc2"] = hit.sum(-1) / true.sum(-1)
        for order, weights in (("f1", true), ("f1_lab", named)):
            metrics[f"{name}_{order}"] = (_f1(hit, true, named) * weights).sum(-1) / weights.sum(-1)
    for place, name in enumerate(CLIPS):
        metrics[name] = rest[..., 18 + place] / count
    return metrics

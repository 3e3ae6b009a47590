"""How well a sentiment value is met: MAE, correlation, and the classes that the MOSI, MOSEI and SIMS corpora make of
values.

Rules: those of the MMSA tables. Accuracy over 3, 5 and 7 classes clips truth and prediction to 1, 2 and 3 and rounds
half to even. Two classes: `has0` takes all samples and asks for >= 0, `non0` leaves out samples of truth 0 and asks for
> 0.
"""

from __future__ import annotations

import numpy as np

F1_ORDERS = ("sklearn", "lab")
CLIPS = {"acc3": 1, "acc5": 2, "acc7": 3}
SIMS_CUTS = {"acc2": (0.0,), "acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}


def regression_scores(truth: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Scores of values against the truth, both [n] float; NaN where a score is undefined.

    mae. corr: Pearson's, NaN where truth or values are constant. has0_acc2, has0_f1, has0_f1_lab, and the same of non0:
    two classes, weighted F1 in both orders (see `weighted_f1`); NaN where no truth differs from 0. acc3, acc5, acc7.
    """
    negative = {"has0": (truth >= 0, values >= 0), "non0": (truth[truth != 0] > 0, values[truth != 0] > 0)}
    scores = {"mae": _mae(truth, values), "corr": correlation(truth, values)}
    for name, (true, predicted) in negative.items():
        scores[f"{name}_acc2"] = float(np.mean(true == predicted)) if len(true) else float("nan")
        scores |= {f"{name}_f1": weighted_f1(true, predicted), f"{name}_f1_lab": weighted_f1(true, predicted, "lab")}
    for name, clip in CLIPS.items():
        scores[name] = float(np.mean(rounded(truth, clip) == rounded(values, clip)))
    return scores


def sims_scores(truth: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Scores of CH-SIMS, truth and values [n] float clipped to 1 before anything else (MAE and correlation too).

    acc2: classes [-1, 0], (0, 1]. acc3: cuts at -.1, .1. acc5: cuts at -.7, -.1, .1, .7. A value at a cut belongs
    below. f1, f1_lab: weighted, of acc2.
    """
    truth, values = np.clip(truth, -1, 1), np.clip(values, -1, 1)
    scores = {"mae": _mae(truth, values), "corr": correlation(truth, values)}
    for name, cuts in SIMS_CUTS.items():
        scores[name] = float(np.mean(sims_bins(truth, cuts) == sims_bins(values, cuts)))
    halves = [sims_bins(one, SIMS_CUTS["acc2"]) for one in (truth, values)]
    return scores | {"f1": weighted_f1(*halves), "f1_lab": weighted_f1(*halves, "lab")}


def weighted_f1(truth: np.ndarray, predicted: np.ndarray, f1_order: str = "sklearn") -> float:
    """Mean F1 over classes weighted by their share of the truth; `lab`: by their share of the predictions, which is
    what code that passes the two to scikit-learn in swapped order gives. NaN without samples. Raises: `ValueError` for
    another order."""
    from sklearn.metrics import f1_score

    if f1_order not in F1_ORDERS:
        raise ValueError(f"f1_order {f1_order!r} is none of {', '.join(F1_ORDERS)}")
    pair = (truth, predicted) if f1_order == "sklearn" else (predicted, truth)
    return float(f1_score(*pair, average="weighted", zero_division=0)) if len(truth) else float("nan")


def correlation(truth: np.ndarray, values: np.ndarray) -> float:
    """Pearson's correlation, in fp64; NaN where one of the two is constant."""
    if not len(truth) or not np.ptp(truth) or not np.ptp(values):
        return float("nan")
    x, y = (one.astype(np.float64) - one.mean(dtype=np.float64) for one in (truth, values))
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))


def rounded(values: np.ndarray, clip: float) -> np.ndarray:
    """Classes of values: clipped, then rounded half to even."""
    return np.round(np.clip(values, -clip, clip))


def sims_bins(values: np.ndarray, cuts: tuple[float, ...]) -> np.ndarray:
    """Number of cuts below each value [n] int64; cuts are taken in the precision of the values, so that a stored .1
    lies on the cut."""
    return np.searchsorted(np.array(cuts, values.dtype), values, side="left")


def _mae(truth: np.ndarray, values: np.ndarray) -> float:
    return float(np.mean(np.abs(truth.astype(np.float64) - values)))

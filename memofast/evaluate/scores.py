"""Every score of a set of predictions, beside those of the trivial predictor, with an alarm for a model that says the same of everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.evaluate.class_scores import class_scores, micro_f1_without
from memofast.evaluate.multi_label_scores import multi_label_scores
from memofast.evaluate.predictions import Predictions
from memofast.evaluate.regression_scores import regression_scores
from memofast.evaluate.sample_statistics import METRICS, scored

_SAME = 1e-6  # spread of values, relative to the largest, that is rounding


def scores_of(
    predictions: Predictions,
    trivial: str | Sequence[str] | float | None = None,
    f1_order: str = "sklearn",
    without: str | None = None,
) -> dict[str, Any]:
    """Scores over the samples whose truth is known, as JSON can hold them.

    Args:
        trivial: what the trivial predictor always says: a class (`single`), labels (`multi`), a value (`regression`), such as what is commonest
            in training. None: the commonest class or set of labels, or the mean, of this very truth.
        f1_order: of the two-class F1 of `regression`, see `weighted_f1`.
        without: class (neutral) beside whose absence the micro F1 is given as `micro_f1_without_CLASS` (`single`).

    Returns: `kind`, `samples`, `unknown` (samples without truth), the scores of `class_scores` with `supports` and `named` by class, of
        `multi_label_scores`, or of `regression_scores` with `f1_order`; `majority`: the trivial predictor's scores and what it `says`;
        `collapsed`: the model says the same of every sample while the truth differs; `failures`: a line per score that is undefined (None).
    Raises: `MemofastError` where no truth is known, a score is not finite, or a class is unknown.
    """
    known = scored(predictions)
    says, always = _trivial(known, trivial)
    scores, of_trivial = (_by_kind(known, said, f1_order, without) for said in (_said(known), always))
    left_out = (f"micro_f1_without_{without}",) if known.kind == "single" and without is not None else ()
    return {
        "kind": known.kind,
        "unknown": len(predictions.ids) - len(known.ids),
        **{name: _json(value) for name, value in scores.items()},
        "majority": {"says": says, **{name: _json(of_trivial[name]) for name in (*METRICS[known.kind], *left_out)}},
        "collapsed": collapsed(known),
        "failures": [_why(known, name) for name in METRICS[known.kind] if math.isnan(scores[name])],
    }


def collapsed(predictions: Predictions) -> bool:
    """Whether the model says the same of every sample, as the majority predictor does, although the truth differs.

    `single`: one class; `multi`: one set of labels; `regression`: one value, up to rounding.
    """
    known = scored(predictions)
    if len(np.unique(known.truth, axis=0)) == 1:
        return False
    if known.kind == "regression":
        return bool(np.ptp(known.scores) <= _SAME * max(np.abs(known.scores).max(), np.finfo(np.float32).tiny))
    return len(np.unique(known.named, axis=0)) == 1


def _said(known: Predictions) -> np.ndarray:
    return known.scores if known.kind == "regression" else known.named


def _by_kind(known: Predictions, said: np.ndarray, f1_order: str, without: str | None) -> dict[str, Any]:
    if known.kind == "multi":
        return multi_label_scores(known.truth, said, known.classes)
    if known.kind == "regression":
        scores = regression_scores(known.truth, said, f1_order)
        return {"samples": len(known.ids), "f1_order": f1_order, **scores}
    counts = {
        "supports": np.bincount(known.truth, minlength=len(known.classes)).tolist(),
        "named": np.bincount(said, minlength=len(known.classes)).tolist(),
    }
    by_class = {name: dict(zip(known.classes, values, strict=True)) for name, values in counts.items()}
    scores = class_scores(known.truth, said, known.classes) | by_class
    if without is not None:
        scores[f"micro_f1_without_{without}"] = micro_f1_without(known.truth, said, known.classes, without)
    return scores


def _trivial(known: Predictions, trivial: str | Sequence[str] | float | None) -> tuple[Any, np.ndarray]:
    """What the trivial predictor says, in words and for every sample."""
    if known.kind == "regression":
        value = float(known.truth.mean(dtype=np.float64)) if trivial is None else float(trivial)
        return value, np.full_like(known.truth, value)
    if trivial is None:
        found, counts = np.unique(known.truth, axis=0, return_counts=True)
        always = found[counts.argmax()].astype(np.int64)
    else:
        named = [trivial] if isinstance(trivial, str) else list(trivial)
        if unknown := [name for name in named if name not in known.classes]:
            raise MemofastError(f"trivial class {unknown[0]!r} is none of {', '.join(known.classes)}")
        numbers = [known.classes.index(name) for name in named]
        always = np.isin(np.arange(len(known.classes)), numbers).astype(np.int64)
        always = np.int64(numbers[0]) if known.kind == "single" else always
    if known.kind == "single":
        return known.classes[int(always)], np.full_like(known.truth, always)
    labels = [name for name, there in zip(known.classes, always, strict=True) if there]
    return labels, np.broadcast_to(always, known.truth.shape)


def _why(known: Predictions, name: str) -> str:
    if name != "corr":
        return f"{name} is undefined: no true value differs from 0"
    constant = "predicted" if not np.ptp(known.scores) else "true"
    return f"corr is undefined: the {constant} values are constant"


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Every score of a set of predictions, beside those of the trivial predictor, with an alarm for a model that says the
same of everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.metrics.class_scores import class_scores, micro_f1_without
from memofast.metrics.multi_label_scores import multi_label_scores
from memofast.metrics.predictions import Predictions
from memofast.metrics.regression_scores import regression_scores
from memofast.metrics.sample_statistics import METRICS, scored

_SAYS = {"single": "class", "multi": "labels", "regression": "value"}
_SAME = 1e-6  # spread of values, relative to the largest, that is rounding


def scores_of(
    predictions: Predictions,
    trivial: str | Sequence[str] | float | None = None,
    without: str | None = None,
) -> dict[str, Any]:
    """Scores over the samples whose truth is known, as JSON can hold them.

    Args:
        trivial: what the trivial predictor always says: a class (`single`), labels (`multi`), a value (`regression`),
        such as what is commonest
            in training. None: the commonest class or set of labels, or the mean, of this very truth.
        without: class (neutral) beside whose absence the micro F1 is given as `micro_f1_without_CLASS` (`single`).

    Returns: `kind`, `samples`, `unknown` (samples without truth), the scores of `class_scores` with `supports` and
        `named` by class, of `multi_label_scores`, or of `regression_scores`; `majority`: the trivial predictor's scores
        and its `class`, `labels` or `value`;
        `collapsed`: the model says the same of every sample while the truth differs; `failures`: a line per score that
        is undefined (None).
    Raises: `MemofastError` where no truth is known, a score is not finite, or a class is unknown.
    """
    known = scored(predictions)
    says, always = trivial_predictions(known, trivial)
    scores, of_trivial = (_by_kind(one, without) for one in (known, always))
    left_out = (f"micro_f1_without_{without}",) if known.kind == "single" and without is not None else ()
    return {
        "kind": known.kind,
        "unknown": len(predictions.ids) - len(known.ids),
        **{name: _json(value) for name, value in scores.items()},
        "majority": {
            _SAYS[known.kind]: says,
            **{name: _json(of_trivial[name]) for name in (*METRICS[known.kind], *left_out)},
        },
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


def trivial_predictions(
    predictions: Predictions, trivial: str | Sequence[str] | float | None = None
) -> tuple[str | list[str] | float, Predictions]:
    """What the trivial predictor says, in words and of every sample whose truth is known. Args and raises: as of
    `scores_of`."""
    known = scored(predictions)
    if known.kind == "regression":
        value = float(known.truth.mean(dtype=np.float64)) if trivial is None else float(trivial)
        return value, replace(known, scores=np.full_like(known.scores, value))
    every = np.arange(len(known.classes))
    if trivial is None:
        found, counts = np.unique(known.truth, axis=0, return_counts=True)
        commonest = found[counts.argmax()]
        always = commonest > 0 if known.kind == "multi" else every == commonest
    else:
        names = [trivial] if isinstance(trivial, str) else list(trivial)
        if unknown := [name for name in names if name not in known.classes]:
            raise MemofastError(f"trivial class {unknown[0]!r} is none of {', '.join(known.classes)}")
        always = np.isin(every, [known.classes.index(name) for name in names])
    says = [name for name, there in zip(known.classes, always, strict=True) if there]
    scores = np.broadcast_to(always.astype(known.scores.dtype), known.scores.shape)
    return says[0] if known.kind == "single" else says, replace(known, scores=scores)


def _by_kind(known: Predictions, without: str | None) -> dict[str, Any]:
    if known.kind == "multi":
        return multi_label_scores(known.truth, known.named, known.classes)
    if known.kind == "regression":
        return {"samples": len(known.ids), **regression_scores(known.truth, known.scores)}
    scores = class_scores(known.truth, known.named, known.classes)
    for name, classes in (("supports", known.truth), ("named", known.named)):
        counts = np.bincount(classes, minlength=len(known.classes)).tolist()
        scores[name] = dict(zip(known.classes, counts, strict=True))
    if without is not None:
        scores[f"micro_f1_without_{without}"] = micro_f1_without(known.truth, known.named, known.classes, without)
    return scores


def _why(known: Predictions, name: str) -> str:
    if name != "corr":
        return f"{name} is undefined: no true value differs from 0"
    constant = "predicted" if not np.ptp(known.scores) else "true"
    return f"corr is undefined: the {constant} values are constant"


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

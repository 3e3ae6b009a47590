"""Variants of one system, each against the first: the same folds, seeds and samples of both, with an interval."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.metrics.bootstrap import DRAWS, interval, resamples
from memofast.metrics.comparison import aligned, groups_of
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import METRICS, metrics_of_sums, sample_statistics, scored

Variant = Mapping[Hashable, Sequence[Predictions]]  # by what is paired, as fold and seed; conditions in one order
Unit = tuple[np.ndarray, np.ndarray]  # of one pair and condition: places of its samples among all, their statistics


def against_first(
    variants: Mapping[str, Variant],
    metric: str,
    groups: Mapping[str, Hashable] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """The score of every variant, and by how much it differs from the first, as JSON can hold it.

    The score of a pair is the mean over its predictions, as of several conditions, that of a variant the mean over its
    pairs. Every draw takes the same samples of all variants, and a sample with all that folds, seeds and conditions
    said of it, so that seeds are averaged inside a draw; with groups, by sample, whole groups are drawn.

    Returns: by variant `score`, `sd` over pairs (n - 1; None of one), `difference` (less the first) and its `interval`
        (95 %, percentiles over samples or groups). None where a metric is undefined, or there is one group alone; the
        first variant has no difference.
    Raises: `MemofastError` for an unknown metric, a variant without predictions or with other pairs than the first, and
        for predictions of one pair that are of other samples, classes or truth.
    """
    (first, its), *others = variants.items()
    _check(first, its, metric)
    kind = next(iter(its.values()))[0].kind
    ids = dict.fromkeys(id for said in its.values() for one in said for id in scored(one).ids)
    drawn_by = dict(zip(ids, groups_of(list(ids), groups or {}), strict=True))
    number = {unit: place for place, unit in enumerate(dict.fromkeys(drawn_by.values()))}
    place = {id: number[unit] for id, unit in drawn_by.items()}
    found, drawn = {}, {}
    for name, variant in [(first, its), *((name, _aligned(first, its, name, other)) for name, other in others)]:
        units = [[_unit(one, place) for one in variant[pair]] for pair in its]
        scores = np.array([np.mean([_metric(kind, of.sum(0), metric) for _, of in unit]) for unit in units])
        every = [one for unit in units for one in unit]
        drawn[name] = np.hstack(
            [
                np.stack([_metric(kind, times[:, rows] @ of, metric) for rows, of in every])
                for times in resamples(len(number), draws, seed)
            ]
        )
        found[name] = {
            "score": _finite(scores.mean()),
            "sd": _finite(scores.std(ddof=1)) if len(scores) > 1 else None,
            "difference": None,
            "interval": None,
        }
        if name != first and found[name]["score"] is not None and found[first]["score"] is not None:
            found[name]["difference"] = found[name]["score"] - found[first]["score"]
            if len(number) > 1:
                found[name]["interval"] = interval(_mean_over_pairs(drawn.pop(name) - drawn[first]))
    return found


def _mean_over_pairs(differences: np.ndarray) -> np.ndarray:
    """Means [draws] of differences [pairs, draws], over the pairs of which a draw has samples."""
    there = np.isfinite(differences)
    with np.errstate(invalid="ignore"):
        return np.where(there, differences, 0).sum(0) / there.sum(0)


def difference_text(found: Mapping[str, Any]) -> str:
    """A difference with its interval, - for none: `+0.031 [-0.004, +0.066]`."""
    if found["difference"] is None:
        return "-"
    ends = "" if found["interval"] is None else " [{:+.3f}, {:+.3f}]".format(*found["interval"])
    return f"{found['difference']:+.3f}{ends}"


def _check(name: str, variant: Variant, metric: str) -> None:
    if not variant or not all(variant.values()):
        raise MemofastError(f"{name} has no predictions to compare; run it first")
    kind = next(iter(variant.values()))[0].kind
    if metric not in METRICS[kind]:
        raise MemofastError(f"{name}: there is no metric {metric!r} of it, but {', '.join(METRICS[kind])}")


def _aligned(first: str, its: Variant, name: str, variant: Variant) -> Variant:
    """The variant's predictions, in the order of the first's samples."""
    if set(variant) != set(its):
        pair = next(iter(set(variant) ^ set(its)))
        raise MemofastError(f"{name} and {first} do not both have {_told(pair)}; compare the same folds and seeds")
    found = {}
    for pair, said in variant.items():
        where = f"{name} against {first}, {_told(pair)}"
        if len(said) != len(its[pair]):
            raise MemofastError(f"{where}: {len(said)} and {len(its[pair])} conditions; give the same ones of both")
        try:
            found[pair] = [aligned(one, other)[1] for one, other in zip(its[pair], said, strict=True)]
        except MemofastError as error:
            raise MemofastError(f"{where}: {error}") from None
    return found


def _unit(predictions: Predictions, place: Mapping[str, int]) -> Unit:
    return np.array([place[id] for id in scored(predictions).ids]), sample_statistics(predictions)


def _metric(kind: str, sums: np.ndarray, metric: str) -> np.ndarray:
    return metrics_of_sums(kind, sums)[metric]


def _told(pair: Hashable) -> str:
    return "fold {}, seed {}".format(*pair) if isinstance(pair, tuple) and len(pair) == 2 else str(pair)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""Intervals by the bootstrap: samples, or whole groups of them, drawn with replacement, the metric of each draw,
percentiles of those (Efron 1979)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import METRICS, metrics_of_sums, sample_statistics

DRAWS = 1000
_CELLS = 4_000_000  # drawn at a time, 32 MB of counts


def intervals(
    predictions: Predictions, draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> dict[str, list[float] | None]:
    """Lower and upper end by metric of the kind (`METRICS`), over samples whose truth is known.

    None where a metric is undefined in more than half of the draws; other undefined draws are left out. The same seed
    gives the same numbers.
    Raises: `MemofastError` where no truth is known or a score is not finite.
    """
    sums = resampled_sums(sample_statistics(predictions), draws, seed)
    metrics = metrics_of_sums(predictions.kind, sums)
    return {name: interval(metrics[name], level) for name in METRICS[predictions.kind]}


def interval(values: np.ndarray, level: float = 0.95) -> list[float] | None:
    """Percentiles that leave (1 - level) / 2 on each side of the values [draws] that are finite; None where less than
    half are."""
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values):
        return None
    tail = 50 * (1 - level)
    return [float(end) for end in np.percentile(finite, [tail, 100 - tail])]


def resampled_sums(
    statistics: np.ndarray, draws: int, seed: int, groups: Sequence[Hashable] | None = None
) -> np.ndarray:
    """Sums [draws, statistics] over n samples drawn with replacement from statistics [n, statistics].

    groups: of each sample; whole groups are drawn then, as many as there are, for samples of one speaker are no
    independent ones.
    """
    if groups is not None:
        statistics = sums_of_groups(statistics, groups)
    return np.concatenate([times @ statistics for times in resamples(len(statistics), draws, seed)])


def resamples(samples: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each sample is drawn [some draws, samples] int64, for all draws in turn; the same seed draws the
    same."""
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // samples)
    for begin in range(0, draws, step):
        rows = min(step, draws - begin)
        chosen = rng.integers(samples, size=(rows, samples)) + samples * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * samples).reshape(rows, samples)


def sums_of_groups(statistics: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Sums [groups, statistics] over the samples of every group, in the order in which groups occur."""
    place = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    found = np.zeros((len(place), statistics.shape[1]))
    np.add.at(found, [place[group] for group in groups], statistics)
    return found

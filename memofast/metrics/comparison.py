"""Whether one set of predictions is better than another on the same samples: McNemar's test and the paired
bootstrap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.metrics.bootstrap import interval, resampled_sums
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import METRICS, metrics_of_sums, sample_statistics, scored

DRAWS = 10_000


def compare(
    first: Predictions,
    second: Predictions,
    draws: int = DRAWS,
    seed: int = 0,
    group_of: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Differences between two sets of predictions of the same samples, in any order, as JSON can hold them.

    group_of: by id; intervals are over these groups then, and a sample without one is a group of its own.

    Returns: `samples`; `groups` (number of them), where they are given; `metrics`: by name `first`, `second`,
        `difference` (second minus first), `interval` (95 %, over samples or groups) and `p` (see `paired_bootstrap`);
        for `single`, `mcnemar`: see `mcnemar`.
    Raises: `MemofastError` where kind, classes, ids or truth differ, where no truth is known or a score is not finite.
    """
    first, second = aligned(first, second)
    groups = None if group_of is None else groups_of(first.ids, group_of)
    statistics = ([sample_statistics(one)] for one in (first, second))
    found = {
        "kind": first.kind,
        "samples": len(first.ids),
        **({} if groups is None else {"groups": len(set(groups))}),
        "metrics": paired_bootstrap(first.kind, *statistics, draws, seed, groups),
    }
    if first.kind == "single":
        found["mcnemar"] = mcnemar(first.named == first.truth, second.named == second.truth)
    return found


def groups_of(ids: Sequence[str], group_of: Mapping[str, str]) -> list[Hashable]:
    """The group of each sample; one without is a group of its own."""
    return [group_of.get(id, (id,)) for id in ids]


def aligned(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Both over the samples whose truth is known, in the order of the first. Raises: `MemofastError` where they cannot
    be compared."""
    if first.kind != second.kind:
        raise MemofastError(f"{first.kind} and {second.kind} predictions cannot be compared; give two of one kind")
    if first.classes != second.classes:
        names = (", ".join(one.classes) for one in (first, second))
        raise MemofastError(f"predictions of other classes cannot be compared: {' against '.join(names)}")
    first, second = scored(first), scored(second)
    place = {id: number for number, id in enumerate(second.ids)}
    if len(set(first.ids)) != len(first.ids) or len(place) != len(second.ids):
        raise MemofastError("predictions that name a sample twice cannot be compared; give one fold and seed of each")
    if differing := sorted(set(first.ids) ^ set(place)):
        raise MemofastError(
            f"predictions of other samples cannot be compared: {len(differing)} are in one alone, {differing[0]!r} "
            "among them; evaluate both on the same split"
        )
    second = second.at(np.array([place[id] for id in first.ids]))
    other = (first.truth != second.truth).reshape(len(first.ids), -1).any(1)
    if other.any():
        raise MemofastError(
            f"predictions with other truth cannot be compared: {int(other.sum())} samples, "
            f"{first.ids[int(other.argmax())]!r} among them; evaluate both on the same labels"
        )
    return first, second


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> dict[str, float | int]:
    """McNemar's test (1947) of two classifiers on the same samples, from who is right [n] bool.

    Returns: `only_first`, `only_second`: samples that one alone names rightly; `p_exact`: two-sided binomial over
        those; `chi_square` with continuity correction (Edwards 1948), `p_chi_square`. Where both err alike, both p are
        1.
    """
    from scipy.stats import binomtest, chi2

    only_first, only_second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    statistic = max(0, abs(only_first - only_second) - 1) ** 2 / discordant if discordant else 0.0
    return {
        "only_first": only_first,
        "only_second": only_second,
        "p_exact": float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
        "chi_square": float(statistic),
        "p_chi_square": float(chi2.sf(statistic, 1)),
    }


def paired_bootstrap(
    kind: str,
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    draws: int = DRAWS,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, dict[str, Any]]:
    """By metric the difference second minus first, each draw taking the same samples, or groups of them, of both.

    Args: first, second: of every seed the statistics [n, statistics] of the same samples in one order, see
        `sample_statistics`; scores are means over seeds, in every draw. groups: of each sample; None: samples are
        drawn.

    Returns: by metric `first`, `second`, `difference`; `interval`: 95 %, percentiles. `p`: two-sided, twice the share
        of draws on the rarer side of no difference, each side counted with one draw more, so that p is never 0
        (Davison and Hinkley 1997). Both are None where a metric is undefined, and of a single group.
    """
    every = [*first, *second]
    sums = np.split(resampled_sums(np.hstack(every), draws, seed, groups), len(every), axis=1)
    drawn, observed = (metrics_of_sums(kind, np.array(one)) for one in (sums, [rows.sum(0) for rows in every]))
    alone, found = groups is not None and len(set(groups)) == 1, {}
    for name in METRICS[kind]:
        differences = drawn[name][len(first) :].mean(0) - drawn[name][: len(first)].mean(0)
        ends = None if alone else interval(differences)
        values = {"first": observed[name][: len(first)].mean(), "second": observed[name][len(first) :].mean()}
        values["difference"] = values["second"] - values["first"]
        found[name] = {which: float(value) if np.isfinite(value) else None for which, value in values.items()}
        found[name] |= {"interval": ends, "p": None if ends is None else _two_sided(differences)}
    return found


def _two_sided(differences: np.ndarray) -> float:
    finite = differences[np.isfinite(differences)]
    rarer = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(finite) + 1))

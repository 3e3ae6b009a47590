"""A fine-tuned model against the best simple baseline of each condition, paired on the same test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memofast.evaluate.baseline_table import ends_text
from memofast.evaluate.results import Run, pooled_statistics
from memofast.evaluate.section import number_text
from memofast.metrics.comparison import DRAWS, groups_of, paired_bootstrap
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, NAMES, metrics_of_sums


def against_baselines(
    runs: Sequence[Run],
    baselines: Mapping[str, Sequence[Run]],
    metric: str,
    by: str | None = None,
    group_of: Mapping[str, str] | None = None,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Differences of the test part, all folds together, mean over seeds in every draw, as JSON can hold them.

    The best baseline of a condition is the one with the best score on this very test data, which favours it.

    Args: by, group_of: groups that are drawn whole; None: samples are drawn.

    Returns: `metric`; `over`: what is drawn; `rows`: `condition`, `best` (a name), `model`, `baseline`, `difference`
        (model minus baseline), `interval` (95 %; None of a single group and where the metric is undefined). Conditions
        whose seeds saw other samples are left out.
    """
    rows, groups = [], None
    for condition in dict.fromkeys(run.condition for run in runs if run.split == "test"):
        own = pooled_statistics([run for run in runs if run.split == "test" and run.condition == condition])
        if own is None:
            continue
        kind = next(run.predictions.kind for run in runs)
        ids, statistics = own
        groups = None if group_of is None else groups_of(ids, group_of)
        of = {name: _in_order(ids, some, condition) for name, some in baselines.items()}
        scores = {name: _score(kind, metric, found) for name, found in of.items() if found is not None}
        if not scores:
            continue
        best = max(scores, key=lambda name: scores[name])
        found = paired_bootstrap(kind, of[best], statistics, draws, groups=groups)[metric]
        values = {"model": found["second"], "baseline": found["first"]}
        rows.append(
            {"condition": condition, "best": best} | values | {name: found[name] for name in ("difference", "interval")}
        )
    over = "samples" if groups is None else f"{len(set(groups)):,} groups ({by})"
    return {"metric": metric, "over": over, "rows": rows}


def baseline_warnings(found: Mapping[str, Any]) -> list[str]:
    """A line for each condition in which the model is not above the best baseline by its whole interval."""
    metric, lines = found["metric"], []
    for row in found["rows"]:
        ends = row["interval"]
        if ends is not None and (ends[1] < 0 if metric in LOWER_IS_BETTER else ends[0] > 0):
            continue
        difference = "undefined" if row["difference"] is None else f"{row['difference']:+.3f} {ends_text(ends)}"
        lines.append(
            f"not above a simple baseline: condition {row['condition']}, {NAMES[metric]} {number_text(row['model'])} "
            f"against {number_text(row['baseline'])} of {row['best']}, difference {difference} over {found['over']}"
        )
    return lines


def _in_order(ids: Sequence[str], runs: Sequence[Run], condition: str) -> list[np.ndarray] | None:
    """Statistics of a baseline, over the samples in this order; None where it has none of the condition, or others."""
    own = pooled_statistics([run for run in runs if run.condition == condition])
    if own is None or sorted(own[0]) != sorted(ids):
        return None
    place = {id: number for number, id in enumerate(own[0])}
    return [rows[[place[id] for id in ids]] for rows in own[1]]


def _score(kind: str, metric: str, statistics: Sequence[np.ndarray]) -> float:
    """Mean over seeds, larger for a better one; the least where it is undefined."""
    score = metrics_of_sums(kind, np.array([rows.sum(0) for rows in statistics]))[metric].mean()
    if not np.isfinite(score):
        return -np.inf
    return float(-score if metric in LOWER_IS_BETTER else score)

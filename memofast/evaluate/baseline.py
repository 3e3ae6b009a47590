"""Two runs compared on the same samples: their kept predictions, or new ones on one corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memofast.data.conditions import CONDITIONS
from memofast.data.folds import read_groups
from memofast.errors import MemofastError
from memofast.evaluate.kept_predictions import kept_predictions
from memofast.evaluate.results import Run, joined
from memofast.metrics.comparison import compare
from memofast.metrics.predictions import Predictions
from memofast.train.finished_runs import recipe_of_run
from memofast.train.fold_parts import kept_whole
from memofast.train.origin import origin_of

Said = Mapping[str, Predictions]  # by condition


def compare_kept(first: Path, second: Path, split: str, asked: Sequence[str] | None) -> list[dict[str, Any]]:
    """Comparisons of what two runs kept of a split, all folds together, seed by seed.

    asked: conditions; None: the fullest that both have. Seeds of the same number are compared, or the only one of each.
    Intervals are over groups where the folds of both keep the same ones whole, else over samples.
    Raises: `MemofastError` where they share no condition or seed, and as `compare`.
    """
    runs = [_by_seed(kept_predictions(run), run, split) for run in (first, second)]
    both = [condition for condition in CONDITIONS if all(condition in one for one in runs)]
    conditions = _chosen(both, asked, f"predictions of {first} and {second} on {split}")
    found, (by, group_of) = [], _common_groups(first, second)
    for condition in conditions:
        one, other = (run[condition] for run in runs)
        pairs = [(seed, seed) for seed in one if seed in other]
        if not pairs and len(one) == len(other) == 1:
            pairs = [(next(iter(one)), next(iter(other)))]
        if not pairs:
            raise MemofastError(
                f"{first} has seeds {', '.join(map(str, one))}, {second} {', '.join(map(str, other))}; "
                "none can be paired"
            )
        for seed, other_seed in pairs:
            a, b = one[seed], other[other_seed]
            title = f"{split}, condition {condition}, seed {seed}" + (
                f" and {other_seed}" if seed != other_seed else ""
            )
            selected = (a[0].selected_on, b[0].selected_on)
            predictions = [joined([run.predictions for run in runs]) for runs in (a, b)]
            found.append(compared(title, names_of(first, second), selected, *predictions, by, group_of))
    return found


def compare_predictions(
    names: tuple[str, str],
    selected_on: tuple[str, str],
    split: str,
    first: Said,
    second: Said,
    asked: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """Comparisons of two models' predictions on one split, by condition as `compare_kept`."""
    both = [condition for condition in CONDITIONS if condition in first and condition in second]
    chosen = _chosen(both, asked, f"{names[0]} and {names[1]} on {split}")
    return [compared(f"{split}, condition {c}", names, selected_on, first[c], second[c]) for c in chosen]


def compared(
    title: str,
    names: tuple[str, str],
    selected_on: tuple[str, str],
    first: Predictions,
    second: Predictions,
    by: str | None = None,
    group_of: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `compare` found, with `title`, `names` (which say so where test data chose the checkpoint), `selected_on`,
    and `by`, the name of the groups, where there are such."""
    marked = [
        f"{name} (selected on test)" if on == "test" else name for name, on in zip(names, selected_on, strict=True)
    ]
    found = compare(first, second, group_of=group_of)
    about = {"title": title, "names": marked, "selected_on": list(selected_on)}
    return {**about, **({} if group_of is None else {"by": by}), **found}


def _common_groups(first: Path, second: Path) -> tuple[str | None, dict[str, str] | None]:
    """The groups that the folds of both runs keep whole, and which sample is in which; None where they differ, there
    are none, or a corpus is no longer there."""
    names, corpora = [], [origin_of(run).corpus for run in (first, second)]
    for run, corpus in zip((first, second), corpora, strict=True):
        names.append(kept_whole(recipe_of_run(run).folds, corpus) if corpus is not None else None)
    if names[0] is None or names[0] != names[1]:
        return None, None
    return names[0], read_groups(corpora[0], names[0])


def names_of(first: Path, second: Path) -> tuple[str, str]:
    """Short names of two folders, or their paths where those are alike."""
    short = first.resolve().name, second.resolve().name
    return short if short[0] != short[1] else (str(first), str(second))


def _by_seed(runs: Sequence[Run], folder: Path, split: str) -> dict[str, dict[int, list[Run]]]:
    """Runs of a split by condition and seed."""
    found: dict[str, dict[int, list[Run]]] = {}
    for run in runs:
        if run.split == split:
            found.setdefault(run.condition, {}).setdefault(run.seed, []).append(run)
    if not found:
        kept = ", ".join(dict.fromkeys(run.split for run in runs))
        raise MemofastError(
            f"run {folder} kept no predictions on {split!r}, but on {kept}; choose with --split, or give --corpus"
        )
    return found


def _chosen(both: Sequence[str], asked: Sequence[str] | None, what: str) -> Sequence[str]:
    if lacking := [condition for condition in asked or () if condition not in both]:
        raise MemofastError(f"{what}: condition {lacking[0]} is not in both; they share {', '.join(both) or 'none'}")
    if not both:
        raise MemofastError(f"{what} share no condition of modalities")
    return asked or both[-1:]

"""What folds, seeds and modality conditions give together: means, deviations, pooled scores with intervals, what chose
the checkpoint.

Numbers stand under a key that says what chose their checkpoint (`selected on validation`, `selected on test`), so that
none is read without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from memofast.data.conditions import CONDITIONS
from memofast.errors import MemofastError
from memofast.metrics.bootstrap import DRAWS, interval, resampled_sums
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import METRICS, class_f1_of_sums, metrics_of_sums, sample_statistics, scored
from memofast.metrics.scores import collapsed, trivial_predictions

_NAMED = 4  # runs, in a warning about many
SELECTED_ON = ("validation", "test", "another corpus", "nothing", "unknown data")


class Run(NamedTuple):
    """Predictions of one model. condition: modalities given, of `CONDITIONS`; split: what was predicted; selected_on:
    what chose the checkpoint, of `SELECTED_ON` (`another corpus`: none of what is tested; `nothing`: the last
    update)."""

    fold: int | str
    seed: int
    condition: str
    split: str
    selected_on: str
    predictions: Predictions


def results_of(
    runs: Iterable[Run | tuple],
    trivial: Mapping[int | str, Any] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """One row per split, selection and condition, as JSON can hold it.

    Args:
        trivial: by fold, what the trivial predictor always says (see `scores_of`); None: the commonest of what each run
        is tested on.
        draws, seed: of the bootstrap.

    Returns: `kind`, `classes`, `draws`, `rows`, `warnings` (lines). A row: `condition`, `split`, `selected_on`,
        `folds`, `seeds`, `runs`, `missing` [fold, seed] of runs that are not there, `samples` (distinct), `supports` by
        class, `collapsed` (runs), and under `selected on ...` (see `numbers`): `runs`: metric to `mean`, `sd` (n - 1;
        None of one run) and `undefined` (runs); `each`: `fold`, `seed` and metrics of every run; `pooled`: metric to
        `mean` over seeds of the score over all folds together, and its `interval` (95 %, over samples; None where seeds
        saw other samples);
        `f1`: class to `mean`, `sd` over the runs that have the class; `confusion` [true, named] summed over runs;
        `majority`: metric to mean.
    Raises: `MemofastError` for no runs, an unknown condition or selection, a run given twice, or runs of other kinds or
        classes.
    """
    runs = _checked([Run(*run) for run in runs])
    kind, classes = runs[0].predictions.kind, runs[0].predictions.classes
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: CONDITIONS.index(run.condition)):
        groups.setdefault((run.split, run.selected_on, run.condition), []).append(run)
    splits = list(dict.fromkeys(run.split for run in runs))
    order = sorted(groups, key=lambda key: (splits.index(key[0]), SELECTED_ON.index(key[1])))
    rows = [_row(groups[key], trivial or {}, draws, seed) for key in order]
    return {
        "kind": kind,
        "classes": list(classes),
        "draws": draws,
        "rows": rows,
        "warnings": [
            *_collapses([groups[key] for key in order]),
            *(line for key, row in zip(order, rows, strict=True) for line in _warnings(groups[key], row)),
        ],
    }


def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a row, whatever chose its checkpoint."""
    return row[f"selected on {row['selected_on']}"]


def check_selected_on(selected_on: str) -> None:
    if selected_on not in SELECTED_ON:
        raise MemofastError(
            f"selected on {selected_on!r} is none of {', '.join(SELECTED_ON)}: say what chose the checkpoint"
        )


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several folds as one, in their order."""
    arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "scores"))
    return Predictions(parts[0].kind, tuple(id for part in parts for id in part.ids), *arrays, parts[0].classes)


def _checked(runs: list[Run]) -> list[Run]:
    if not runs:
        raise MemofastError("there are no runs to put into a table; fine-tune a fold first")
    seen = set()
    for run in runs:
        what = f"fold {run.fold}, seed {run.seed}, condition {run.condition}, {run.split}"
        if run.condition not in CONDITIONS:
            raise MemofastError(f"{what}: there is no such condition, there are {', '.join(CONDITIONS)}")
        check_selected_on(run.selected_on)
        if (key := run[:5]) in seen:
            raise MemofastError(f"{what} is given twice; give each run once")
        seen.add(key)
        first = runs[0].predictions
        if (run.predictions.kind, run.predictions.classes) != (first.kind, first.classes):
            raise MemofastError(f"{what} has another kind or other classes than the first run; make a table of each")
    return runs


def _row(group: list[Run], trivial: Mapping[int | str, Any], draws: int, seed: int) -> dict[str, Any]:
    first = group[0]
    folds, seeds = (sorted({getattr(run, name) for run in group}, key=_natural) for name in ("fold", "seed"))
    there = {(run.fold, run.seed) for run in group}
    known = [scored(run.predictions) for run in group]
    truth_of = {id: truth for one in known for id, truth in zip(one.ids, one.truth, strict=True)}
    supports = _supports(first.predictions, np.array(list(truth_of.values())))
    return {
        "condition": first.condition,
        "split": first.split,
        "selected_on": first.selected_on,
        "folds": folds,
        "seeds": seeds,
        "runs": len(group),
        "missing": [list(pair) for pair in product(folds, seeds) if pair not in there],
        "samples": len(truth_of),
        **({"supports": supports} if supports else {}),
        "collapsed": sum(map(collapsed, known)),
        f"selected on {first.selected_on}": _numbers(group, known, trivial, draws, seed),
    }


def _numbers(
    group: list[Run], known: list[Predictions], trivial: Mapping[int | str, Any], draws: int, seed: int
) -> dict[str, Any]:
    kind, classes = known[0].kind, known[0].classes
    always = [trivial_predictions(one, trivial.get(run.fold))[1] for run, one in zip(group, known, strict=True)]
    sums, of_trivial = (np.array([sample_statistics(one).sum(0) for one in some]) for some in (known, always))
    metrics = metrics_of_sums(kind, sums)
    found: dict[str, Any] = {
        "runs": {name: _spread(values) for name, values in metrics.items()},
        "each": [
            {"fold": run.fold, "seed": run.seed, **{name: _finite(values[n]) for name, values in metrics.items()}}
            for n, run in enumerate(group)
        ],
        "pooled": _pooled(group, draws, seed),
    }
    if classes:
        f1 = class_f1_of_sums(kind, sums)
        found["f1"] = {name: _spread(f1[:, number]) for number, name in enumerate(classes)}
    if kind == "single":
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        for one in known:
            np.add.at(confusion, (one.truth, one.named), 1)
        found["confusion"] = confusion.tolist()
    by_metric = metrics_of_sums(kind, of_trivial)
    return found | {"majority": {name: _spread(values)["mean"] for name, values in by_metric.items()}}


def _spread(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean and standard deviation over the runs in which a score is defined, and how many are not."""
    defined = values[np.isfinite(values)]
    return {
        "mean": float(defined.mean()) if len(defined) else None,
        "sd": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "undefined": len(values) - len(defined),
    }


def pooled_statistics(group: Sequence[Run]) -> tuple[tuple[str, ...], list[np.ndarray]] | None:
    """Ids of the samples of all folds together, and of every seed the statistics [samples, statistics] of them, see
    `sample_statistics`. None for no run, and where seeds saw other samples.

    A sample that several folds hold is one, with the sum of its statistics.
    """
    by_seed: dict[int, list[Predictions]] = {}
    for run in group:
        by_seed.setdefault(run.seed, []).append(run.predictions)
    pools = [scored(joined(parts)) for parts in by_seed.values()]
    if any(sorted(pool.ids) != sorted(pools[0].ids) for pool in pools) or not pools:
        return None
    place = {id: number for number, id in enumerate(dict.fromkeys(pools[0].ids))}
    statistics = []
    for pool in pools:
        rows = sample_statistics(pool)
        statistics.append(np.zeros((len(place), rows.shape[1])))
        np.add.at(statistics[-1], [place[id] for id in pool.ids], rows)
    return tuple(place), statistics


def _pooled(group: list[Run], draws: int, seed: int) -> dict[str, dict[str, Any]] | None:
    """Scores over all folds together, mean over seeds; every draw takes the same samples of each seed. None where seeds
    saw other samples."""
    if (found := pooled_statistics(group)) is None:
        return None
    kind, statistics = group[0].predictions.kind, found[1]
    observed = metrics_of_sums(kind, np.array([rows.sum(0) for rows in statistics]))
    sums = np.split(resampled_sums(np.hstack(statistics), draws, seed), len(statistics), axis=1)
    drawn = metrics_of_sums(kind, np.array(sums))
    return {
        name: {"mean": _finite(observed[name].mean()), "interval": interval(drawn[name].mean(0))}
        for name in METRICS[kind]
    }


def _supports(predictions: Predictions, truth: np.ndarray) -> dict[str, int]:
    if predictions.kind == "regression":
        return {}
    single = predictions.kind == "single"
    counts = np.bincount(truth, minlength=len(predictions.classes)) if single else (truth > 0).sum(0)
    return dict(zip(predictions.classes, counts.tolist(), strict=True))


def _collapses(groups: Sequence[list[Run]]) -> list[str]:
    """A line for each model that says the same of every sample; one for all of them where they are many."""
    fell = [[run for run in group if collapsed(run.predictions)] for group in groups]
    every = [run for some in fell for run in some]
    if len(every) <= _NAMED:
        return [
            f"{_what(run)}: the model has collapsed, it says {_says(run.predictions)} of every sample, as a trivial "
            "predictor does"
            for run in every
        ]
    counts = ", ".join(
        f"{len(some)} of {len(group)} on {group[0].condition}, {group[0].split}"
        for some, group in zip(fell, groups, strict=True)
        if some
    )
    named = "; ".join(f"{_what(run)}: {_says(run.predictions)}" for run in every[:_NAMED])
    return [
        f"models have collapsed and say the same of every sample, as a trivial predictor does: {counts} ({named}; ...)"
    ]


def _what(run: Run) -> str:
    return f"fold {run.fold}, seed {run.seed}, condition {run.condition}, {run.split}"


def _warnings(group: list[Run], row: Mapping[str, Any]) -> Iterable[str]:
    for run in group:
        if run.predictions.kind == "regression" and not (
            collapsed(run.predictions) or np.ptp(scored(run.predictions).truth)
        ):
            yield f"{_what(run)}: Corr is undefined, the true values are constant"
    if row["missing"]:
        named = "; ".join(f"fold {fold}, seed {seed}" for fold, seed in row["missing"][:_NAMED])
        yield f"condition {row['condition']}, {row['split']}: {len(row['missing'])} runs are missing ({named})"
    if numbers(row)["pooled"] is None:
        yield f"condition {row['condition']}, {row['split']}: seeds saw other samples, so there are no pooled scores"


def _says(predictions: Predictions) -> str:
    known = scored(predictions)
    if known.kind == "regression":
        return f"{known.scores[0]:.3g}"
    if known.kind == "single":
        return repr(known.classes[known.named[0]])
    names = [name for name, there in zip(known.classes, known.named[0], strict=True) if there]
    return " and ".join(map(repr, names)) or "no label"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _natural(name: int | str) -> tuple[bool, int | str]:
    """Numbers in their order, then names."""
    return (isinstance(name, str), name)

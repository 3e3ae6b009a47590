"""What a sweep came to: every setting by its validation score, the winner named by those alone, and the winner's test
numbers, which say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from memofast.data.folds import read_groups
from memofast.evaluate.baseline_report import with_baselines
from memofast.evaluate.how_chosen import how_chosen, lines_of_choice
from memofast.evaluate.kept_predictions import kept_predictions
from memofast.evaluate.results import results_of
from memofast.evaluate.results_table import print_results, sections
from memofast.evaluate.section import Section, print_section, section_markdown
from memofast.files import replace_file, write_json
from memofast.metrics.paired_variants import against_first, difference_text
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, NAMES
from memofast.metrics.scores import collapsed
from memofast.train.fine_tuning_run import answers_file
from memofast.train.finished_runs import DONE, read_done, recipe_of_run
from memofast.train.fold_parts import Fold, kept_whole
from memofast.train.search_grid import told, winner_of
from memofast.train.sweep_file import Setting, Sweep
from memofast.train.sweep_runs import is_finished, place_of

CHOSEN = "settings chosen by this sweep on validation data of the same corpus"


def sweep_results(sweep: Sweep, folder: Path, failed: Mapping[str, str], console: Console) -> dict[str, Any]:
    """What is kept of a sweep, as JSON can hold it. failed: why, by name of a setting.

    Returns: `protocol` (lines), `metric`, `drawn` (of the bootstrap), `conditions` that choose, `settings`: `name`,
        `options`, `scores` (of every fold and seed, on validation data), `score`, `sd`, `collapsed` (runs), `seconds`,
        `difference` to the first finished one and its `interval` (see `against_first`), or `failed`; `first`; `winner`:
        a name, None where no setting has a score; `test`: `results_of` its test answers, with baselines, None where
        there are none; `warnings`.
    """
    runs, metric = sweep.runs(), sweep.plan.metric
    finished = [setting for setting in sweep.settings if is_finished(place_of(folder, setting), runs)]
    done = {setting.name: _done(place_of(folder, setting), runs) for setting in finished}
    scores = {name: [one["score"] for one in every] for name, every in done.items()}
    said = {setting.name: _validation(place_of(folder, setting), setting, runs) for setting in finished}
    compared = against_first(said, metric, _groups(sweep)) if said else {}
    rows = []
    for setting in sweep.settings:
        row: dict[str, Any] = {"name": setting.name, "options": setting.options}
        if setting.name in done:
            row |= {"scores": scores[setting.name], **_spread(scores[setting.name])}
            row |= {"collapsed": sum(any(map(collapsed, every)) for every in said[setting.name].values())}
            row |= {"seconds": round(sum(one["seconds"] for one in done[setting.name]), 1)}
            row |= {name: compared[setting.name][name] for name in ("difference", "interval")}
        else:
            row |= {"failed": failed.get(setting.name, "is not finished")}
        rows.append(row)
    winner = winner_of(scores, metric)
    kept = kept_predictions(place_of(folder, _named(sweep, winner))) if winner else []
    tested = [run for run in kept if run.split == "test"]
    test = results_of(tested, trivial=sweep.plan.trivial()) if tested else None
    if winner and test:
        best = _named(sweep, winner)
        place = place_of(folder, best)
        test = with_baselines(test, best.plan, tested, place, console)
        test["chosen"] = how_chosen(recipe_of_run(place), place, [fold.name for fold in best.plan.folds])
    return {
        "protocol": _protocol(sweep, winner, len(finished)),
        "metric": metric,
        "drawn": f"groups {by}" if (by := kept_whole(sweep.plan.recipe.folds, sweep.plan.corpus)) else "samples",
        "conditions": list(sweep.plan.select),
        "settings": rows,
        "first": finished[0].name if finished else None,
        "winner": winner,
        "test": test,
        "warnings": [f"setting {row['name']} failed: {row['failed']}" for row in rows if "failed" in row],
    }


def seen_by_choice(folds: Sequence[Fold]) -> tuple[int, int]:
    """How many of the samples that are tested chose the setting too, as validation data of another fold; and how many
    are tested."""
    tested = {id for fold in folds if fold.test is not None for id in fold.test.ids}
    chose = {id for fold in folds if fold.validation is not None for id in fold.validation.ids}
    return len(tested & chose), len(tested)


def print_sweep(results: dict[str, Any], folder: Path, console: Console) -> None:
    """Print what `sweep_results` found; the last line names the winner."""
    print_section(_table(results), console)
    for line in results["protocol"]:
        console.print(line, markup=False)
    if results["test"]:
        print_results(results["test"], console)
    for line in results["warnings"]:
        console.print(f"warning: {line}", style="bold yellow", markup=False)
    console.print(_winner_line(results, folder), markup=False)


def write_sweep_results(results: dict[str, Any], folder: Path) -> None:
    """Write `results.json` and, last, `results.md`. Raises: `MemofastError` where they cannot be written."""
    parts = [f"# {folder.resolve().name}\n", section_markdown(_table(results))]
    parts.append("".join(f"- {line}\n" for line in [*results["protocol"], _winner_line(results, folder)]))
    if results["test"]:
        parts.append(f"## Setting {results['winner']} on test data ({CHOSEN})\n")
        parts.append("".join(f"- {line}\n" for line in lines_of_choice(results["test"]["chosen"])))
        parts += map(section_markdown, sections(results["test"], every_confusion=True))
    if warnings := [*results["warnings"], *(results["test"] or {}).get("warnings", ())]:
        parts.append("".join(f"- warning: {line}\n" for line in warnings))
    write_json(folder / "results.json", results)
    replace_file(folder / "results.md", "\n".join(parts).encode())


def _groups(sweep: Sweep) -> Mapping[str, str] | None:
    by = kept_whole(sweep.plan.recipe.folds, sweep.plan.corpus)
    return read_groups(sweep.plan.corpus, by) if by else None


def _done(place: Path, runs: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    return [read_done(place / fold / f"seed-{seed}" / DONE) for fold, seed in runs]


def _validation(
    place: Path, setting: Setting, runs: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], list[Predictions]]:
    """What a setting said of validation data, by fold and seed, under the conditions that choose."""
    return {
        (fold, seed): [
            Predictions.load(answers_file(place / fold / f"seed-{seed}", "validation", condition))
            for condition in setting.plan.select
        ]
        for fold, seed in runs
    }


def _spread(scores: Sequence[float | None]) -> dict[str, float | None]:
    numbers = [score for score in scores if score is not None and math.isfinite(score)]
    whole = len(numbers) == len(scores)
    return {
        "score": float(np.mean(numbers)) if whole else None,
        "sd": float(np.std(numbers, ddof=1)) if whole and len(numbers) > 1 else None,
    }


def _named(sweep: Sweep, name: str) -> Setting:
    return next(setting for setting in sweep.settings if setting.name == name)


def _protocol(sweep: Sweep, winner: str | None, finished: int) -> list[str]:
    plan, folds = sweep.plan, sweep.plan.folds
    metric, seeds = NAMES[plan.metric], len(plan.recipe.train.seeds)
    lines = [
        f"protocol: {len(folds)} {_plural('fold', len(folds))} x {seeds} {_plural('seed', seeds)} of each of "
        f"{len(sweep.settings)} settings; checkpoints and settings are selected on validation, by {metric} of "
        f"{', '.join(plan.select)}"
    ]
    if any(setting.plan.select != plan.select for setting in sweep.settings):
        lines[0] += ", or what modalities.select of a setting names"
    if winner is None:
        return lines
    lines.append(
        f"setting {winner} has the best mean validation {metric} of {finished} finished settings, on validation data "
        f"of the same folds: its test numbers are of a chosen setting (selected on validation; {CHOSEN})"
    )
    seen, tested = seen_by_choice(folds)
    if seen:
        lines.append(
            f"{seen:,} of the {tested:,} samples that are tested are validation data of another fold, by which the "
            "setting was chosen too; memofast finetune search=... chooses inside every training part, without them"
        )
    return lines


def _table(results: dict[str, Any]) -> Section:
    metric, first = results["metric"], results["first"]
    several = any(row.get("sd") is not None for row in results["settings"])
    better = " (less is better)" if metric in LOWER_IS_BETTER else ""
    headings = (
        "setting", "options", "runs", f"validation {NAMES[metric]}{' ± sd' if several else ''}",
        f"less setting {first} [95 %]" if first else "difference", "seconds",
    )  # fmt: skip
    rows = []
    for row in results["settings"]:
        name = f"{row['name']} (best)" if row["name"] == results["winner"] else row["name"]
        if "failed" in row:
            rows.append((name, told(row["options"]), "0", "failed", "-", "-"))
            continue
        score = "undefined" if row["score"] is None else f"{row['score']:.3f}"
        spread = "" if row["sd"] is None else f" ± {row['sd']:.3f}"
        runs = f"{len(row['scores'])}" + (f" ({row['collapsed']} collapsed)" if row["collapsed"] else "")
        rows.append((name, told(row["options"]), runs, score + spread, difference_text(row), f"{row['seconds']:.1f}"))
    title = (
        f"{NAMES[metric]} on validation data{better}, mean over folds and seeds; difference paired by fold and seed "
        f"[95 % bootstrap interval over {results['drawn']}]"
    )
    return Section(title, headings, rows)


def _winner_line(results: dict[str, Any], folder: Path) -> str:
    if results["winner"] is None:
        return "no setting has a validation score in every fold and with every seed, so there is no winner"
    row = next(row for row in results["settings"] if row["name"] == results["winner"])
    metric = NAMES[results["metric"]]
    place = folder / "settings" / row["name"]
    return f"best on validation: {told(row['options'])}, {metric} {row['score']:.3f}; its run is {place}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"

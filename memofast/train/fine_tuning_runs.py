"""A fine-tuning of every fold with every seed, in one process over shared stores; finished runs are not repeated.

A run folder holds `config.yaml`, per fold and seed a folder, see `fine_tuning_run`, per fold `search` where settings
are chosen, and at the end `results.json`, `results.md` and `model`, that of the fold and seed with the best validation.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from memofast.cpu import limit_compiled_products
from memofast.metrics.predictions import Predictions
from memofast.train.checkpoints import remove_checkpoints
from memofast.train.fine_tuning_plan import FineTuningPlan
from memofast.train.fine_tuning_run import FoldRun, answers_file
from memofast.train.finished_runs import DONE, best_of, read_done
from memofast.train.fold_parts import Fold
from memofast.train.nested_search import choose
from memofast.train.processes import Processes
from memofast.train.weights import move_model


def fine_tune(
    plan: FineTuningPlan, folder: Path, console: Console, processes: Processes | None = None
) -> list[dict[str, Any]]:
    """Run what is not finished yet. Returns: per run what `done.json` holds.

    Raises: `MemofastError` as `Trainer`; `SystemExit` after Ctrl-C or SIGTERM, with everything saved.
    """
    limit_compiled_products()
    runs, processes = list(plan.runs()), processes or Processes()
    chosen: dict[str, tuple[FineTuningPlan, Fold]] = {}
    for number, (fold, seed) in enumerate(runs, 1):
        place = folder / fold.name / f"seed-{seed}"
        if not processes.from_first((place / DONE).is_file()):
            if fold.name not in chosen:
                chosen[fold.name] = choose(plan, plan.folds.index(fold), folder, console, processes)
            console.print(f"run {number} of {len(runs)}: fold {fold.name}, seed {seed}")
            own, its_fold = chosen[fold.name]
            FoldRun(own, its_fold, seed, place, folder).run(console, processes)
        elif processes.first:
            read_done(place / DONE)
            remove_checkpoints(place)
    done = [read_done(folder / fold.name / f"seed-{seed}" / DONE) for fold, seed in runs]
    if processes.first:
        _keep_best_model(folder, done)
    return done


def answers(plan: FineTuningPlan, folder: Path) -> Iterator[tuple[str, int, str, str, str, Predictions]]:
    """What finished runs said: fold, seed, condition, part, what chose the checkpoint, answers."""
    for fold, seed in plan.runs():
        for part in ("validation", "test"):
            for condition in plan.evaluate:
                path = answers_file(folder / fold.name / f"seed-{seed}", part, condition)
                if path.is_file():
                    yield fold.name, seed, condition, part, fold.selected_on, Predictions.load(path)


def _keep_best_model(folder: Path, done: list[dict[str, Any]]) -> None:
    """Move the best run's model to `folder/model` and remove the others."""
    best = best_of(done)
    for run in done:
        model = folder / run["fold"] / f"seed-{run['seed']}" / "model"
        if run is best and model.is_dir():
            shutil.rmtree(folder / "model", ignore_errors=True)
            move_model(model, folder / "model")
        shutil.rmtree(model, ignore_errors=True)

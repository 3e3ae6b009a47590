"""Nested choice: settings are chosen on inner folds of a fold's training part, so that its test part sees the winner
alone.

Source: Varma and Simon, "Bias in error estimation when using cross-validation for model selection", 2006.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from memofast.errors import MemofastError
from memofast.files import read_json, write_json
from memofast.inference.split_predictions import predict_split
from memofast.metrics.sample_statistics import metrics_of
from memofast.sections import Section, checked
from memofast.train.checkpoints import remove_checkpoints
from memofast.train.fine_tuning import OBJECTIVE
from memofast.train.fine_tuning_plan import FineTuningPlan
from memofast.train.fine_tuning_run import FoldRun
from memofast.train.fold_parts import Fold, inner_folds
from memofast.train.processes import Processes
from memofast.train.search_grid import told, winner_of
from memofast.train.trainer import Diverged, Trainer

FOLDER, CHOSEN = "search", "chosen.json"
_PROBED = 4  # updates that a run's time is told from


class Score(Section):
    """What an inner run with these settings came to. score: None where the training diverged or the metric is no
    number, which `why` says."""

    settings: dict[str, Any]
    score: float | None
    why: str
    seconds: float


class Tried(Section):
    """Settings, and their scores on inner folds."""

    settings: dict[str, Any]
    scores: list[Score]

    @property
    def mean(self) -> float | None:
        """None where an inner fold has none."""
        scores = [one.score for one in self.scores]
        return None if None in scores else statistics.fmean(scores)


class Choice(Section):
    """What `chosen.json` says of a fold. number: of the winner among those tried."""

    fold: str
    metric: str
    inner_folds: int | str
    number: int
    tried: list[Tried]

    @property
    def settings(self) -> dict[str, Any]:
        return self.tried[self.number].settings

    @property
    def seconds(self) -> float:
        return sum(one.seconds for tried in self.tried for one in tried.scores)


def choose(
    plan: FineTuningPlan, number: int, folder: Path, console: Console, processes: Processes
) -> tuple[FineTuningPlan, Fold]:
    """The plan whose settings do best on inner folds of fold `number`, and that fold of it; without a search the plan
    itself. Finished inner runs are not repeated.

    Raises: `MemofastError` where no setting has a score on all inner folds.
    """
    fold = plan.folds[number]
    if not plan.candidates:
        return plan, fold
    place = folder / fold.name / FOLDER
    tried = []
    for count, candidate in enumerate(plan.candidates, 1):
        scores = []
        for inner in inner_folds(candidate.folds[number], candidate.recipe, candidate.target):
            run = FoldRun(
                _alone(candidate), inner, plan.recipe.train.seeds[0], place / f"{count:03}" / inner.name, folder
            )
            what = f"setting {count} of {len(plan.candidates)} ({told(candidate.settings)}), {inner.name}"
            scores.append(_scored(run, f"fold {fold.name}: {what}", console, processes))
        tried.append(Tried(settings=dict(candidate.settings), scores=scores))
    best = winner_of({number: [one.score for one in own.scores] for number, own in enumerate(tried)}, plan.metric)
    if best is None:
        raise MemofastError(
            f"fold {fold.name}: no setting has a score on every inner fold ({tried[0].scores[0].why}); search others"
        )
    choice = Choice(fold=fold.name, metric=plan.metric, inner_folds=plan.recipe.inner_folds, number=best, tried=tried)
    if processes.first:
        write_json(place / CHOSEN, choice.plain())
        console.print(f"fold {fold.name}: chose {told(choice.settings)}, {plan.metric} {tried[best].mean:.4f} inside")
    return plan.candidates[best], plan.candidates[best].folds[number]


def read_choice(folder: Path, fold: str) -> Choice:
    """What a fold chose. Raises: `MemofastError` where the file is missing or damaged."""
    path = folder / fold / FOLDER / CHOSEN
    try:
        values = read_json(path)
    except (OSError, ValueError):
        raise MemofastError(f"{path}: missing or damaged; continue the run with --resume {folder}") from None
    return checked(values, str(path), Choice)


def minutes_of(plan: FineTuningPlan) -> float:
    """About how long a fine-tuning with a search takes on this machine, from a few updates with every setting;
    validation and predictions, which come beside, not counted."""
    search = outer = 0.0
    for candidate in plan.candidates:
        inner = inner_folds(candidate.folds[0], candidate.recipe, candidate.target)
        seconds = [_seconds(_alone(candidate), inner[0]), _seconds(candidate, candidate.folds[0])]
        search += seconds[0] * len(inner) * len(plan.folds)
        outer = max(outer, seconds[1] * len(plan.folds) * len(plan.recipe.train.seeds))
    return (search + outer) / 60


def _alone(plan: FineTuningPlan) -> FineTuningPlan:
    """The plan of an inner run: its samples are those of the share already."""
    train = plan.recipe.train.model_copy(update={"share": 1.0})
    return replace(plan, recipe=plan.recipe.model_copy(update={"train": train}))


def _seconds(plan: FineTuningPlan, fold: Fold) -> float:
    """Of all updates of a run, from the median of a few."""
    with tempfile.TemporaryDirectory() as folder:
        run = FoldRun(plan, fold, plan.recipe.train.seeds[0], Path(folder), Path(folder))
        trainer, times = Trainer(run.task(), run.place, Processes()), []
        with closing(trainer.step), closing(iter(trainer.loader)) as updates:
            for update in islice(updates, _PROBED):
                begun = time.perf_counter()
                trainer.update(update)
                times.append(time.perf_counter() - begun)
        return statistics.median(times) * trainer.options.updates


def _scored(run: FoldRun, what: str, console: Console, processes: Processes) -> Score:
    path = run.place / "score.json"
    if (found := processes.from_first(_read_score(path, run) if processes.first else None)) is not None:
        return found
    console.print(what)
    begun, why, score = time.monotonic(), "", None
    try:
        trainer = run.trained(processes)
    except Diverged as error:
        why = str(error)
    else:
        score = processes.from_first(_score(run, trainer) if processes.first else None)
        why = "" if score is not None else f"{run.plan.metric} is no number"
    found = Score(settings=dict(run.plan.settings), score=score, why=why, seconds=round(time.monotonic() - begun, 1))
    if processes.first:
        said = f"{run.plan.metric} {score:.4f}" if score is not None else f"no score: {why}"
        console.print(f"  {said}, {found.seconds} s")
        write_json(path, found.plain())
        remove_checkpoints(run.place)
    processes.wait()
    return found


def _score(run: FoldRun, trainer: Trainer) -> float | None:
    """The metric on the inner test part, mean over the conditions that choose; without one, that of the validation."""
    plan, fold = run.plan, run.fold
    if fold.test is None:
        return trainer.state.scores.get((plan.corpus.name, OBJECTIVE), {}).get(plan.metric)
    model = trainer.learner.model
    each = [metrics_of(predict_split(model, fold.test, plan.target, trainer.precision, one)) for one in plan.select]
    mean = float(np.mean([one[plan.metric] for one in each]))
    return mean if np.isfinite(mean) else None


def _read_score(path: Path, run: FoldRun) -> Score | None:
    try:
        found = checked(read_json(path), str(path), Score)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MemofastError):
        raise MemofastError(f"{path}: damaged; remove it to repeat this run") from None
    if found.settings != run.plan.settings:
        raise MemofastError(
            f"{path} is of {told(found.settings)}, not of {told(run.plan.settings)}; put search back as it was, or "
            f"remove {run.place.parents[1]} to choose anew"
        )
    return found

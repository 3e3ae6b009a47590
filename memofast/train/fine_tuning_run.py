"""One run of a fine-tuning, of one fold and seed, and what it keeps: `metrics.jsonl`, `answers/PART-CONDITION.npz`,
`model` and `done.json`."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from memofast.data import Stream
from memofast.data.conditions import keep
from memofast.devices import device_of_rank
from memofast.files import remove, temporary_of, write_json
from memofast.inference.dialogues import as_read
from memofast.inference.split_predictions import predict_split
from memofast.model.families import FAMILIES
from memofast.model.family import EmotionModel
from memofast.train import device_faults
from memofast.train.checkpoints import remove_checkpoints, writing
from memofast.train.fine_tuning import OBJECTIVE, FineTuning
from memofast.train.fine_tuning_plan import FineTuningPlan, start_model
from memofast.train.finished_runs import DONE
from memofast.train.fold_parts import Fold, share_of_classes
from memofast.train.model_graph import write_graph
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer


@dataclass(frozen=True, eq=False)
class FoldRun:
    """One fold and seed to be run. place: its folder; root: that of all runs, for people who go on."""

    plan: FineTuningPlan
    fold: Fold
    seed: int
    place: Path
    root: Path

    def trained(self, processes: Processes) -> Trainer:
        """Train, or go on, to the end; the best checkpoint is in the learner, and on disk until `remove_checkpoints`.

        Raises: `MemofastError` as `Trainer`; `SystemExit` after Ctrl-C or SIGTERM, with everything saved.
        """
        recipe, go_on = self.plan.resolved().plain(), f"continue with --resume {self.root}"
        tuning = self.plan.recipe.train
        with writing(str(self.place), go_on):
            self.place.mkdir(parents=True, exist_ok=True)
        with device_faults.explained(self.place, device_of_rank(tuning.device, processes.local_rank), run=self.root):
            trainer = Trainer(self.task(processes.world), self.place, processes, go_on, recipe, self.root.parent)
        with device_faults.explained(self.place, trainer.device, trainer.state, self.root):
            trainer.run()
            trainer.keep_best()
            trainer.task.conclude(trainer.precision, trainer.device)
            processes.wait()  # checkpoints go once every rank has read its own
        return trainer

    def task(self, world: int = 1) -> FineTuning:
        """What a trainer trains, from the beginning."""
        plan, fold, seed = self.plan, self.fold, self.seed
        torch.manual_seed(seed)
        model = start_model(plan.recipe, plan.target, fold.train)
        eligible = share_of_classes(fold.train, plan.target, plan.recipe.train.share, seed)
        streams = [Stream(fold.train, objective=condition, eligible=eligible) for condition in plan.train]
        tuning = plan.recipe.train.model_copy(update={"metric": plan.metric})
        family = FAMILIES[plan.recipe.model.family]
        return FineTuning(
            model, streams, fold.validation, tuning, seed, plan.select, plan.target, world, family, plan.recipe.losses
        )

    def run(self, console: Console, processes: Processes) -> None:
        """Train, and keep answers, model and what the run came to."""
        begun = time.monotonic()
        trainer = self.trained(processes)
        if processes.first:
            with device_faults.explained(self.place, trainer.device, trainer.state, self.root):
                _finish(self, trainer, begun, console)
        processes.wait()


def _finish(run: FoldRun, trainer: Trainer, begun: float, console: Console) -> None:
    """Keep answers, model and what the run came to; checkpoints go."""
    plan, fold, place = run.plan, run.fold, run.place
    state, model = trainer.state, trainer.learner.model
    parts = {"validation": fold.validation, "test": fold.test}
    for part, split in parts.items():
        # what chose on test data has no other validation part
        for condition in plan.evaluate if split is not None and (part == "test" or split is not fold.test) else ():
            found = predict_split(model, split, plan.target, trainer.precision, condition)
            found.save(answers_file(place, part, condition))
    with writing(str(place / "model"), trainer.go_on):
        _keep_model(trainer, place / "model")
    if (fold.name, run.seed) == next((first.name, seed) for first, seed in plan.runs()):  # one graph serves all runs
        _keep_graph(model.eval(), fold, plan.evaluate[-1], place, console)
    scores = state.scores.get((plan.corpus.name, OBJECTIVE), {})
    done = {
        "fold": fold.name, "seed": run.seed, "selected_on": fold.selected_on,
        "best_update": state.best, "updates": state.step,
        "metric": plan.metric, "score": scores.get(plan.metric), "train": len(trainer.task.streams()[0].chosen),
        "seconds": round(time.monotonic() - begun, 1), "precision": trainer.precision,
        "settings": dict(plan.settings),
    }  # fmt: skip
    write_json(place / DONE, done)
    remove_checkpoints(place)
    chosen_by = (
        f"{plan.metric} {done['score']:.4f} on {fold.selected_on} data"
        if done["score"] is not None
        else "kept the last"
        if fold.validation is None
        else f"{plan.metric} was never a number on {fold.selected_on} data; kept the first"
    )
    console.print(f"  {chosen_by} at update {state.best}, {done['seconds']} s")


def _keep_model(trainer: Trainer, folder: Path) -> None:
    """Raises: what saving does, after which nothing is left."""
    temporary = temporary_of(folder)
    try:
        trainer.frozen.save(trainer.learner.model, temporary)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it said that it was done
        temporary.rename(folder)
    finally:
        remove(temporary)


def _keep_graph(model: EmotionModel, fold: Fold, condition: str, place: Path, console: Console) -> None:
    """The model's graph beside the run's TensorBoard events, of its first two samples."""
    batch = keep(as_read(model, fold.train).pack(range(min(2, len(fold.train)))), condition)
    try:
        write_graph(place / "tensorboard", model, batch.to(next(model.parameters()).device))
    except Exception as error:  # what tracing cannot follow costs the picture, never the run
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        console.print(f"  no graph of the model for TensorBoard: {reason}", markup=False)


def answers_file(place: Path, part: str, condition: str) -> Path:
    return place / "answers" / f"{part}-{condition}.npz"

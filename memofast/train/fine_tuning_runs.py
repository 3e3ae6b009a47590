"""A fine-tuning of every fold with every seed, in one process over shared stores; finished runs are not repeated.

A run folder holds `config.yaml`, per fold and seed a folder with `metrics.jsonl`, `answers/PART-CONDITION.npz` and
`done.json`, and at the end `results.json`, `results.md` and `model`, that of the fold and seed with the best
validation.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from rich.console import Console
from transformers.utils import logging

from memofast.cpu import limit_compiled_products
from memofast.data import Corpus, Split, Stream
from memofast.data.conditions import modalities_of
from memofast.data.demo import EMBEDDED, open_corpus
from memofast.data.feature_choice import reading
from memofast.data.folds import read_groups
from memofast.devices import device_of_rank
from memofast.errors import MemofastError, nearest
from memofast.files import read_json, write_json
from memofast.inference.split_predictions import predict_split
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, METRICS
from memofast.model.compatibility import check_longest, check_words, conditions_for, shared_modalities
from memofast.model.families import FAMILIES
from memofast.model.family import EmotionModel
from memofast.model.feature_sets import feature_sets_of, unknown_feature_sets
from memofast.objectives.label_space import LabelSpace
from memofast.sections import Section, checked
from memofast.train import device_faults
from memofast.train.checkpoints import remove_checkpoints, writing
from memofast.train.fine_tuning import OBJECTIVE, FineTuning
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.fold_parts import (
    Fold,
    check_classes,
    make_folds,
    share_of_classes,
    trivial_answers,
)
from memofast.train.optimisation import parameter_groups
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer

DONE = "done.json"
CHOOSES = {"single": "ua", "multi": "macro_f1", "regression": "mae"}


class Done(Section):
    """What `done.json` says of a finished run."""

    fold: Annotated[str, Field(pattern=r"^[^/\x00]{1,200}$")]  # a folder
    seed: int
    selected_on: str
    best_update: int
    updates: int
    metric: str
    score: float | None
    train: int
    seconds: float
    precision: str


@dataclass(frozen=True, eq=False)
class FineTuningPlan:
    """A recipe with everything opened. train, select, evaluate: conditions of modalities."""

    recipe: FineTuneRecipe
    corpus: Corpus
    target: LabelSpace
    folds: list[Fold]
    train: tuple[str, ...]
    select: tuple[str, ...]
    evaluate: tuple[str, ...]

    @property
    def metric(self) -> str:
        return self.recipe.train.metric or CHOOSES[self.target.kind]

    def trivial(self) -> dict[str, Any]:
        """What the majority predictor says, by fold, see `trivial_answers`."""
        return trivial_answers(self.folds, self.target)

    def resolved(self) -> FineTuneRecipe:
        """The recipe with its paths spelt out."""
        recipe = self.recipe.model_copy(deep=True)
        if recipe.corpus not in EMBEDDED:
            recipe.corpus = str(Path(recipe.corpus).resolve())
        if recipe.model.init:
            recipe.model.init = str(Path(recipe.model.init).resolve())
        if (face := getattr(recipe.model, "face", None)) is not None and face.init:
            face.init = str(Path(face.init).resolve())
        return recipe

    def describe(self) -> str:
        """What will be run, in a few lines."""
        first, train = self.folds[0], self.recipe.train
        sizes = (
            f"{len(first.train):,} to train on, {len(first.validation or ()):,} to choose on, "
            f"{len(first.test or ()):,} to test"
        )
        lines = [
            f"corpus {self.corpus.name}: {', '.join(self.target.classes)}; fold {first.name} has {sizes}",
            f"{len(self.folds)} folds x {len(train.seeds)} seeds, {train.epochs} epochs each; "
            f"trained on {', '.join(self.train)}",
            f"best by {self.metric} of {', '.join(self.select)} on {first.selected_on} data"
            if first.selected_on != "nothing"
            else "the last update is kept: every number of this run is selected on nothing",
        ]
        choice = self.recipe.folds
        dealt = len(read_groups(self.corpus, choice.by)) if choice.count is not None else None
        if dealt is not None and (left := len(self.corpus.stores["text"]) - dealt):
            lines.append(f"{left:,} samples of the corpus have no {choice.by} and are in no fold")
        lines += [f"{modality} rows: {own}, {own.width} wide" for modality, own in feature_sets_of(self.corpus).items()]
        if init := self.recipe.model.init:
            lines += unknown_feature_sets(init, self.corpus)
        if first.selected_on == "test":
            lines.append("protocol paper: every number of this run is selected on test")
        return "\n".join(lines)

    def runs(self) -> Iterator[tuple[Fold, int]]:
        """Every fold with every seed."""
        for fold in self.folds:
            for seed in self.recipe.train.seeds:
                yield fold, seed


def make_fine_tuning_plan(recipe: FineTuneRecipe) -> FineTuningPlan:
    """Open everything a recipe names.

    Raises: `MemofastError` for a missing corpus, a label that is not in the map, a class without training samples in a
        fold, a condition of modalities that corpus or model lack, a starting checkpoint of another architecture.
    """
    logging.disable_progress_bar()  # of loading and saving, which are quick
    corpus = reading(open_corpus(recipe.corpus), recipe.modalities.features)
    target = LabelSpace.of_corpus(corpus, recipe.target.kind, recipe.target.map)
    target.within(corpus)
    folds = make_folds(recipe, corpus)
    for fold in folds:
        for seed in recipe.train.seeds:
            check_classes(fold, target, share_of_classes(fold.train, target, recipe.train.share, seed))
    metric = recipe.train.metric
    if metric and metric not in METRICS[target.kind]:
        raise MemofastError(f"train.metric {metric!r}{nearest(metric, METRICS[target.kind])}")
    model = start_model(recipe, target, folds[0].train)
    parameter_groups(model, recipe.train)
    given = recipe.modalities
    train = conditions_for(model, corpus, given.train or [shared_modalities(model, corpus)])
    select = conditions_for(model, corpus, given.select or train)
    evaluate = conditions_for(model, corpus, given.evaluate)
    for part in filter(None, (folds[0].train, folds[0].validation, folds[0].test)):
        check_words(model, part)
        check_longest(model, part, modalities_of("".join((*train, *select, *evaluate))))
    return FineTuningPlan(recipe, corpus, target, folds, train, select, evaluate)


def start_model(recipe: FineTuneRecipe, target: LabelSpace, train: Split) -> EmotionModel:
    """The model a run starts from, see `family.Start`."""
    return FAMILIES[recipe.model.family].start(recipe.model, target.kind, target.classes, train, recipe.prompt)


def fine_tune(
    plan: FineTuningPlan, folder: Path, console: Console, processes: Processes | None = None
) -> list[dict[str, Any]]:
    """Run what is not finished yet. Returns: per run what `done.json` holds.

    Raises: `MemofastError` as `Trainer`; `SystemExit` after Ctrl-C or SIGTERM, with everything saved.
    """
    limit_compiled_products()
    runs, processes = list(plan.runs()), processes or Processes()
    for number, (fold, seed) in enumerate(runs, 1):
        place = folder / fold.name / f"seed-{seed}"
        if not processes.from_first((place / DONE).is_file()):
            console.print(f"run {number} of {len(runs)}: fold {fold.name}, seed {seed}")
            _run(plan, fold, seed, place, console, processes)
        elif processes.first:
            read_done(place / DONE)
            remove_checkpoints(place)
    done = [read_done(folder / fold.name / f"seed-{seed}" / DONE) for fold, seed in runs]
    if processes.first:
        _keep_best_model(folder, done)
    return done


def _run(plan: FineTuningPlan, fold: Fold, seed: int, place: Path, console: Console, processes: Processes) -> None:
    chosen, begun = plan.recipe.train, time.monotonic()
    with writing(str(place), f"continue with --resume {place.parents[1]}"):
        place.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = start_model(plan.recipe, plan.target, fold.train)
    eligible = share_of_classes(fold.train, plan.target, chosen.share, seed)
    streams = [Stream(fold.train, objective=condition, eligible=eligible) for condition in plan.train]
    tuning = chosen.model_copy(update={"metric": plan.metric})
    task = FineTuning(
        model,
        streams,
        fold.validation,
        tuning,
        seed,
        plan.select,
        plan.target,
        processes.world,
        FAMILIES[plan.recipe.model.family],
    )
    root = place.parents[1]
    with device_faults.explained(place, device_of_rank(chosen.device, processes.local_rank), run=root):
        trainer = Trainer(task, place, processes, f"continue with --resume {root}", plan.resolved().plain())
    with device_faults.explained(place, trainer.device, trainer.state, root):
        trainer.run()
        trainer.keep_best()
        processes.wait()  # checkpoints go once every rank has read its own
        if processes.first:
            _finish(plan, fold, seed, place, trainer, len(streams[0].chosen), begun, console)
    processes.wait()


def _finish(
    plan: FineTuningPlan,
    fold: Fold,
    seed: int,
    place: Path,
    trainer: Trainer,
    samples: int,
    begun: float,
    console: Console,
) -> None:
    """Keep answers, model and what the run came to; checkpoints go."""
    state, model = trainer.state, trainer.learner.model
    parts = {"validation": fold.validation, "test": fold.test}
    for part, split in parts.items():
        # what chose on test data has no other validation part
        for condition in plan.evaluate if split is not None and (part == "test" or split is not fold.test) else ():
            found = predict_split(model, split, plan.target, trainer.precision, condition)
            found.save(answers_file(place, part, condition))
    with writing(str(place / "model"), trainer.go_on):
        model.save_pretrained(place / "model")
    scores = state.scores.get((plan.corpus.name, OBJECTIVE), {})
    done = {
        "fold": fold.name, "seed": seed, "selected_on": fold.selected_on,
        "best_update": state.best, "updates": state.step,
        "metric": plan.metric, "score": scores.get(plan.metric), "train": samples,
        "seconds": round(time.monotonic() - begun, 1), "precision": trainer.precision,
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


def read_done(path: Path) -> dict[str, Any]:
    """What a finished run came to. Raises: `MemofastError` where the file is damaged."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        values = None
    try:
        checked(values, str(path), Done)
    except MemofastError as error:
        raise MemofastError(f"{error}; remove {path} to repeat this run") from None
    return values


def answers_file(place: Path, part: str, condition: str) -> Path:
    return place / "answers" / f"{part}-{condition}.npz"


def answers(plan: FineTuningPlan, folder: Path) -> Iterator[tuple[str, int, str, str, str, Predictions]]:
    """What finished runs said: fold, seed, condition, part, what chose the checkpoint, answers."""
    for fold, seed in plan.runs():
        for part in ("validation", "test"):
            for condition in plan.evaluate:
                path = answers_file(folder / fold.name / f"seed-{seed}", part, condition)
                if path.is_file():
                    yield fold.name, seed, condition, part, fold.selected_on, Predictions.load(path)


def best_of(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the finished runs, in their order, the one whose model is kept: that with the best validation, the first where
    nothing chose.

    A run whose metric was never a number, as a correlation of equal answers is none, is kept only where no other one
    has a score.
    """
    scored = [run for run in done if run["score"] is not None]
    if not scored:
        return done[0]
    return max(scored, key=lambda run: -run["score"] if run["metric"] in LOWER_IS_BETTER else run["score"])


def _keep_best_model(folder: Path, done: list[dict[str, Any]]) -> None:
    """Move the best run's model to `folder/model` and remove the others."""
    best = best_of(done)
    for run in done:
        model = folder / run["fold"] / f"seed-{run['seed']}" / "model"
        if run is best and model.is_dir():
            shutil.rmtree(folder / "model", ignore_errors=True)
            model.rename(folder / "model")
        shutil.rmtree(model, ignore_errors=True)

"""A fine-tuning of every fold with every seed, in one process over shared stores; finished runs are not repeated.

A run folder holds `config.yaml`, per fold and seed a folder with `metrics.jsonl`, `answers/PART-CONDITION.npz` and `done.json`,
and at the end `results.json`, `results.md` and `model`, that of the fold and seed with the best validation.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging

from memofast.data import Corpus, Split, Stream
from memofast.data.demo import DEMO, open_corpus
from memofast.data.feature_statistics import feature_statistics
from memofast.errors import MemofastError, nearest
from memofast.files import write_json
from memofast.inference.split_predictions import answer
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, METRICS
from memofast.model import MemoBertConfig, MemoBertForEmotion, MemoBertModel
from memofast.model.compatibility import check_sizes, check_widths, check_words, conditions_for, shared_modalities
from memofast.model.memobert.embeddings import FEATURE_MODALITIES
from memofast.model.memobert.emotion import PROBLEMS
from memofast.model.memobert.pre_training import is_bert
from memofast.model.memobert.prompt import TEMPLATES, WORDS, MemoBertForPrompt, Prompt
from memofast.objectives.target import Target
from memofast.train.fine_tuning import FineTuner, FineTuning
from memofast.train.fine_tuning_recipe import FineTuneRecipe, PromptChoice
from memofast.train.fold_parts import (
    Fold,
    check_classes,
    make_folds,
    share_of_classes,
    trivial_answers,
)

DONE = "done.json"
CHOOSES = {"single": "ua", "multi": "macro_f1", "regression": "mae"}


@dataclass(frozen=True, eq=False)
class FineTuningPlan:
    """A recipe with everything opened. train, select, evaluate: conditions of modalities."""

    recipe: FineTuneRecipe
    corpus: Corpus
    target: Target
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
        if recipe.corpus != DEMO:
            recipe.corpus = str(Path(recipe.corpus).resolve())
        if recipe.model.init:
            recipe.model.init = str(Path(recipe.model.init).resolve())
        return recipe

    def describe(self) -> str:
        """What will be run, in a few lines."""
        first, train = self.folds[0], self.recipe.train
        sizes = f"{len(first.train):,} to train on, {len(first.validation or ()):,} to choose on, {len(first.test or ()):,} to test"
        lines = [
            f"corpus {self.corpus.name}: {', '.join(self.target.classes)}; fold {first.name} has {sizes}",
            f"{len(self.folds)} folds x {len(train.seeds)} seeds, {train.epochs} epochs each; trained on {', '.join(self.train)}",
            f"best by {self.metric} of {', '.join(self.select)} on {first.selected_on} data"
            if first.selected_on != "nothing"
            else "the last update is kept: every number of this run is selected on nothing",
        ]
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

    Raises: `MemofastError` for a missing corpus, a label that is not in the map, a class without training samples in a fold, a condition
        of modalities that corpus or model lack, a starting checkpoint of another architecture.
    """
    logging.disable_progress_bar()  # of loading and saving, which are quick
    corpus = open_corpus(recipe.corpus)
    target = Target.of_corpus(corpus, recipe.target.kind, recipe.target.map)
    target.within(corpus)
    folds = make_folds(recipe, corpus)
    for fold in folds:
        for seed in recipe.train.seeds:
            check_classes(fold, target, share_of_classes(fold.train, target, recipe.train.share, seed))
    metric = recipe.train.metric
    if metric and metric not in METRICS[target.kind]:
        raise MemofastError(f"train.metric {metric!r}{nearest(metric, METRICS[target.kind])}")
    model = start_model(recipe, corpus, target, folds[0].train)
    for part in filter(None, (folds[0].train, folds[0].validation, folds[0].test)):
        check_words(model.config, part)
    given = recipe.modalities
    train = conditions_for(model.config, corpus, given.train or [shared_modalities(model.config, corpus)])
    select = conditions_for(model.config, corpus, given.select or train)
    return FineTuningPlan(
        recipe, corpus, target, folds, train, select, conditions_for(model.config, corpus, given.evaluate)
    )


def start_model(
    recipe: FineTuneRecipe, corpus: Corpus, target: Target, train: Split
) -> MemoBertForEmotion | MemoBertForPrompt:
    """The model a run starts from; what is random in it comes from torch's generator, and fresh projections suit the rows of `train`.

    Raises: `MemofastError` for a checkpoint of another architecture, or whose feature rows have another width than the corpus.
    """
    chosen = recipe.model
    widths = {f"{modality}_width": corpus.width(modality) for modality in FEATURE_MODALITIES}
    entries = {name: value for name, value in chosen.entries().items() if name not in ("head", "freeze")}
    asked = {"problem_type": PROBLEMS[target.kind], "emotion_head": chosen.head}
    if chosen.init is None:
        named = {"id2label": dict(enumerate(target.classes)), "label2id": {c: n for n, c in enumerate(target.classes)}}
        model = MemoBertForEmotion(MemoBertConfig(**widths | entries | named | asked))
    else:
        check_sizes(chosen.init, entries, may_lack=list(widths))
        entries = (widths if is_bert(chosen.init) else {}) | entries
        if recipe.prompt:
            model = _start_prompt(recipe.prompt, chosen.init, target, entries)
        else:
            model = MemoBertForEmotion.start(chosen.init, target.classes, **entries, **asked)
        check_widths(model.config, chosen.init, corpus)
    if chosen.init is None or is_bert(chosen.init):
        _standardise(model.memobert, train)
    model.memobert.freeze(None if chosen.freeze == "all" else chosen.freeze)
    return model


def _standardise(encoder: MemoBertModel, train: Split) -> None:
    for modality in FEATURE_MODALITIES:
        embeddings, found = getattr(encoder.embeddings, modality), feature_statistics(train, modality)
        if embeddings is not None and found is not None:
            embeddings.standardise(*found)


def _start_prompt(choice: PromptChoice, init: str, target: Target, entries: dict[str, Any]) -> MemoBertForPrompt:
    template = choice.template
    if isinstance(template, str):
        if template not in TEMPLATES:
            raise MemofastError(f"prompt.template {template!r}{nearest(template, TEMPLATES)}")
        template = TEMPLATES[template]
    words = WORDS | (choice.words or {})
    for name in target.classes:
        if name not in words:
            raise MemofastError(f"no word is known for class {name!r}; add prompt.words.{name}=WORD_PIECE")
    return MemoBertForPrompt.start(
        init, target.classes, Prompt(tuple(template), choice.position, choice.prefix), [words[name] for name in target.classes],
        whole_vocabulary=choice.answers == "vocabulary", soft_from_words=choice.soft_from_words, **entries,
    )  # fmt: skip


def fine_tune(plan: FineTuningPlan, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Run what is not finished yet. Returns: per run what `done.json` holds.

    Raises: `MemofastError` as `FineTuner`; `SystemExit` after Ctrl-C or SIGTERM, with everything saved.
    """
    runs = list(plan.runs())
    for number, (fold, seed) in enumerate(runs, 1):
        place = folder / fold.name / f"seed-{seed}"
        if not (place / DONE).is_file():
            console.print(f"run {number} of {len(runs)}: fold {fold.name}, seed {seed}")
            _run(plan, fold, seed, place, console)
    done = [json.loads((folder / fold.name / f"seed-{seed}" / DONE).read_text()) for fold, seed in runs]
    _keep_best_model(folder, done)
    return done


def _run(plan: FineTuningPlan, fold: Fold, seed: int, place: Path, console: Console) -> None:
    chosen, begun = plan.recipe.train, time.monotonic()
    place.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = start_model(plan.recipe, plan.corpus, plan.target, fold.train)
    eligible = share_of_classes(fold.train, plan.target, chosen.share, seed)
    streams = [Stream(fold.train, objective=condition, eligible=eligible) for condition in plan.train]
    options = FineTuning(
        chosen.epochs, chosen.samples, chosen.lr, chosen.validations, chosen.patience, plan.metric, chosen.class_weights,
        chosen.smoothing, seed, chosen.precision, chosen.device, plan.select, chosen.warmup, chosen.weight_decay, chosen.hide,
        chosen.hide_columns,
    )  # fmt: skip
    go_on = f"continue with --resume {place.parents[1]}"
    tuner = FineTuner(model, streams, fold.validation, options, place, plan.target, go_on)
    state = tuner.run()
    parts = {"validation": fold.validation, "test": fold.test}
    for part, split in parts.items():
        # what chose on test data has no other validation part
        for condition in plan.evaluate if split is not None and (part == "test" or split is not fold.test) else ():
            found = answer(model, split, plan.target, tuner.precision, condition)
            found.save(answers_file(place, part, condition))
    model.save_pretrained(place / "model")
    done = {
        "fold": fold.name, "seed": seed, "selected_on": fold.selected_on, "best_update": state.best, "updates": state.step,
        "metric": plan.metric, "score": state.best_scores.get(plan.metric), "train": len(fold.train) if eligible is None else int(eligible.sum()),
        "seconds": round(time.monotonic() - begun, 1), "precision": tuner.precision,
    }  # fmt: skip
    write_json(place / DONE, done)
    shutil.rmtree(place / "checkpoints")
    chosen_by = (
        f"{plan.metric} {done['score']:.4f} on {fold.selected_on} data"
        if fold.selected_on != "nothing"
        else "kept the last"
    )
    console.print(f"  {chosen_by} at update {state.best}, {done['seconds']} s")


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
    """Of the finished runs, in their order, the one whose model is kept: that with the best validation, the first where nothing chose."""
    if done[0]["score"] is None:
        return done[0]
    return max(done, key=lambda run: -run["score"] if run["metric"] in LOWER_IS_BETTER else run["score"])


def _keep_best_model(folder: Path, done: list[dict[str, Any]]) -> None:
    """Move the best run's model to `folder/model` and remove the others."""
    best = best_of(done)
    for run in done:
        model = folder / run["fold"] / f"seed-{run['seed']}" / "model"
        if run is best and model.is_dir():
            shutil.rmtree(folder / "model", ignore_errors=True)
            model.rename(folder / "model")
        shutil.rmtree(model, ignore_errors=True)

"""A recipe of fine-tuning with everything opened: corpus, target, folds, conditions, and what a search tries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import logging

from memofast.data import Corpus, Split
from memofast.data.conditions import modalities_of
from memofast.data.conversations import context_of, positions_skipped, samples_cut, samples_unplaced
from memofast.data.demo import EMBEDDED, open_corpus
from memofast.data.dialogue import Context
from memofast.data.feature_choice import reading
from memofast.data.folds import read_groups
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError, nearest
from memofast.inference.dialogues import with_context
from memofast.metrics.sample_statistics import METRICS
from memofast.model.adapters.kept import lines_on_training
from memofast.model.compatibility import (
    check_longest,
    check_room,
    check_shortest,
    check_words,
    conditions_for,
    has_words,
    lines_on_nothing,
    lines_on_untrained,
    shared_modalities,
)
from memofast.model.families import FAMILIES
from memofast.model.family import EmotionModel
from memofast.model.feature_sets import feature_sets_of, unknown_feature_sets
from memofast.objectives.label_space import LabelSpace
from memofast.prepare.text.vocabulary import check_tokenizer
from memofast.sections import Section
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.fold_parts import (
    Fold,
    check_classes,
    inner_folds,
    make_folds,
    share_of_classes,
    trivial_answers,
)
from memofast.train.leaks import lines_on_leaks
from memofast.train.loss_checks import check_losses, lines_on_losses
from memofast.train.optimisation import lines_on_fixed_groups
from memofast.train.search_grid import settings_of, told, with_settings

CHOOSES = {"single": "ua", "multi": "macro_f1", "regression": "mae"}


@dataclass(frozen=True, eq=False)
class FineTuningPlan:
    """A recipe with everything opened. train, select, evaluate: conditions of modalities. rows: names of the stores
    and streams whose rows the model reads, and the modality of each.

    settings: by option what a search changed of the recipe; candidates: the plans that it tries, of the same folds.
    notes: lines on how the model reads the corpus, see `Family.notes`.
    trained: lines on what of the model is trained. leaks: warnings, see `lines_on_leaks`.
    """

    recipe: FineTuneRecipe
    corpus: Corpus
    target: LabelSpace
    folds: list[Fold]
    train: tuple[str, ...]
    select: tuple[str, ...]
    evaluate: tuple[str, ...]
    rows: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[FineTuningPlan, ...] = ()
    notes: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()

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
        for section in (recipe.model, *(part for _, part in recipe.model)):
            if isinstance(section, Section) and getattr(section, "init", None):
                section.init = str(Path(section.init).resolve())
        for loss in recipe.losses.values():
            for teacher in getattr(loss, "teachers", ()):
                teacher.path = str(Path(teacher.path).resolve())
        return recipe

    def describe(self, others: Sequence[FineTuningPlan] = ()) -> str:
        """What will be run, in a few lines. others: settings that are run beside it, which may read another context."""
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
        lines += [*self.trained, *lines_on_losses(self.recipe)]
        choice = self.recipe.folds
        dealt = len(read_groups(self.corpus, choice.by)) if choice.count is not None else None
        if dealt is not None and (left := len(self.corpus.stores["text"]) - dealt):
            lines.append(f"{left:,} samples of the corpus have no {choice.by} and are in no fold")
        if self.candidates:
            lines.append(self._of_search())
        read = [line for plan in (self.candidates or (self, *others)) for line in lines_on_context(plan.corpus)]
        lines += [*dict.fromkeys(read), *(self._shared_dialogues() if read else [])]
        lines += [
            f"{modality} rows: {own}, {own.width} wide"
            for modality, own in feature_sets_of(self.corpus).items()
            if modality in self.rows
        ]
        if init := self.recipe.model.init:
            lines += unknown_feature_sets(init, self.corpus)
        lines += [*self.notes, *(f"warning: {line}" for line in self.leaks)]
        if first.selected_on == "test":
            lines.append("protocol paper: every number of this run is selected on test")
        return "\n".join(lines)

    def _shared_dialogues(self) -> list[str]:
        """A line where words of one part are read in another one."""
        dialogue_of = read_groups(self.corpus, "dialogue")
        for fold in self.folds:
            parts = {"train": fold.train, fold.selected_on: fold.validation, "test": fold.test}
            homes: dict[str, str] = {}
            for part, split in parts.items():
                for id in split.ids if split is not None else ():
                    if id in dialogue_of and homes.setdefault(dialogue_of[id], part) != part:
                        return [
                            f"dialogue {dialogue_of[id]} lies in {homes[dialogue_of[id]]} and {part} of fold "
                            f"{fold.name}, and maybe others: words of one are read in the other; folds.by=dialogue "
                            "keeps dialogues whole"
                        ]
        return []

    def _of_search(self) -> str:
        inner = self.recipe.inner_folds
        on, each = ("the validation part", 1) if inner == "validation" else (f"{inner} inner folds", inner)
        count = len(self.candidates)
        return (
            f"each fold chooses among {count} settings of {', '.join(self.recipe.search)} on {on} of its training "
            f"part: {count * each * len(self.folds)} further runs of one seed"
        )

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
    if recipe.context:
        if missing := next((name for name in recipe.context.rows if name not in corpus.stores), None):
            raise MemofastError(
                f"corpus {corpus.path} has no {missing} rows, which context.{missing} reads of other utterances; leave "
                "it out"
            )
        corpus = with_context(corpus, recipe.context, words_from(recipe))
    target = LabelSpace.of_corpus(corpus, recipe.target.kind, recipe.target.map)
    target.within(corpus)
    folds = make_folds(recipe, corpus)
    for fold in folds:
        for seed in recipe.train.seeds:
            check_classes(fold, target, share_of_classes(fold.train, target, recipe.train.share, seed))
    metric = recipe.train.metric
    if metric and metric not in METRICS[target.kind]:
        raise MemofastError(f"train.metric {metric!r}{nearest(metric, METRICS[target.kind])}")
    if recipe.search:
        for fold in folds:
            inner_folds(fold, recipe, target)
        alone = recipe.model_copy(update={"search": {}})
        tried = settings_of(recipe.search)
        if "modalities.features" in recipe.search:
            raise MemofastError("search: modalities.features changes the corpus; compare them with memofast sweep")
        plans = [_candidate(alone, settings) for settings in tried]
        for plan, settings in zip(plans, tried, strict=True):
            check_comparable(plans[0], plan, f"search ({told(settings)})")
            if plan.evaluate != plans[0].evaluate:
                raise MemofastError(
                    f"search ({told(settings)}): is evaluated on {', '.join(plan.evaluate)}, the first on "
                    f"{', '.join(plans[0].evaluate)}; fix modalities.evaluate"
                )
        pairs = zip(plans, tried, strict=True)
        return replace(plans[0], recipe=recipe, candidates=tuple(replace(p, settings=own) for p, own in pairs))
    model = start_model(recipe, target, folds[0].train)
    of_text = getattr(recipe.model, "tokenizer", None)  # which a family names whose encoder of text has its own
    notes = check_tokenizer(corpus, Path(of_text), "model.text.init") if of_text else []
    if not of_text and recipe.model.init and "text" in model.reads and has_words(corpus):
        check_tokenizer(corpus, Path(recipe.model.init), "model.init")
    check_losses(recipe, model, target.classes, [fold.train for fold in folds])
    if recipe.context:
        check_room(recipe.context, model)
    given = recipe.modalities
    train = conditions_for(model, corpus, given.train or [shared_modalities(model, corpus)])
    select = conditions_for(model, corpus, given.select or train)
    evaluate = conditions_for(model, corpus, given.evaluate)
    shown = modalities_of("".join((*train, *select, *evaluate)))
    if unseen := next((name for name in (recipe.context.rows if recipe.context else ()) if name not in shown), None):
        raise MemofastError(f"context.{unseen}: no condition of modalities shows {unseen}; add one, or leave it out")
    parts = [part for part in (folds[0].train, folds[0].validation, folds[0].test) if part is not None]
    for part in parts:
        check_words(model, part)
        check_longest(model, part, shown)
    for fold in folds:
        check_shortest(model, fold.train)
        for part in filter(None, (fold.validation, fold.test)):
            check_shortest(model, part, (*select, *evaluate))
    notes += [*lines_on_nothing(model, parts), *lines_on_untrained(train, evaluate)]
    rows = {name: name for name in FEATURES if name in model.reads and name in corpus.stores} | dict(model.streams)
    of_family = FAMILIES[recipe.model.family].notes
    notes += of_family(model, corpus) if of_family else []
    fixed = lines_on_fixed_groups(nn.ModuleDict({"model": model}), recipe.train)
    trained = (*lines_on_training(model), *fixed)
    leaks = tuple(lines_on_leaks(recipe, folds))
    return FineTuningPlan(
        recipe, corpus, target, folds, train, select, evaluate, rows, notes=tuple(notes), trained=trained, leaks=leaks
    )


def _candidate(recipe: FineTuneRecipe, settings: Mapping[str, Any]) -> FineTuningPlan:
    changed = with_settings(recipe, settings)
    try:
        return make_fine_tuning_plan(changed)
    except MemofastError as error:
        raise MemofastError(f"search ({told(settings)}): {error}") from None


def told_of_context(context: Context) -> str:
    """What is read around an utterance, in a line."""
    later = f" and {context.later} later" if context.later else ""
    asked = f", asked {context.query} it" if context.query else ""
    pooled = ", the mean of its own words" if context.pool == "words" else ""
    rows = "".join(f", {most} of {name}" for name, most in context.rows.items())
    read = f"up to {context.utterances} earlier{later} utterances, {context.tokens} rows{asked}{pooled}{rows}"
    return f"read in dialogues: {read}"


def lines_on_context(corpus: Corpus) -> list[str]:
    """What is read around the utterances of a corpus, how many have less than that, and why; none of one that is read
    without context."""
    if (context := context_of(corpus)) is None:
        return []
    cut = {"texts" if name == "text" else name: count for name, count in samples_cut(corpus).items()}
    less = ", ".join(f"{count:,} {name}" for name, count in cut.items())
    lines = [f"{told_of_context(context)}; {less} of the corpus have less for that"]
    lines += [f"corpus {corpus.name} has no {name} rows to read" for name in context.rows if name not in corpus.stores]
    skipped, dialogues = positions_skipped(corpus)
    alone, unknown = samples_unplaced(corpus)
    told = {
        f"positions skip {skipped:,} numbers in {dialogues:,} dialogues: whatever was said there is not in the "
        "corpus, and not read": skipped,
        f"{alone:,} samples of the corpus are in no dialogue and read alone": alone,
        f"{unknown:,} samples of dialogues have no speaker, who has no number": unknown,
    }
    return lines + [line for line, count in told.items() if count]


def check_comparable(first: FineTuningPlan, plan: FineTuningPlan, where: str) -> None:
    """Raises: `MemofastError` where settings are chosen by other conditions than the first; `where`, for the
    message."""
    if plan.select != first.select:
        raise MemofastError(
            f"{where}: is chosen by {', '.join(plan.select)}, the first by {', '.join(first.select)}; fix "
            "modalities.select, so that scores mean the same"
        )


def words_from(recipe: FineTuneRecipe) -> str | None:
    """The folder of the model whose word pieces a corpus has that carries none."""
    return recipe.model.init or getattr(recipe.model, "tokenizer", None)


def start_model(recipe: FineTuneRecipe, target: LabelSpace, train: Split) -> EmotionModel:
    """The model a run starts from, see `family.Start`."""
    return FAMILIES[recipe.model.family].start(recipe.model, target.kind, target.classes, train, recipe.prompt)

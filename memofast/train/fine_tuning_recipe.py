"""The recipe of a fine-tuning: corpus, folds, model, target, modalities and training, one pydantic model read from
YAML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from memofast.data.conditions import CONDITIONS
from memofast.data.dialogue import Context
from memofast.errors import MemofastError
from memofast.model.families import FAMILIES, EmotionSection
from memofast.model.memobert.section import MemoBertEmotionSection, PromptSection
from memofast.sections import FilePath, Section, checked
from memofast.train.loss_sections import BY_TEACHERS, FurtherLoss, LabelLoss, LossName
from memofast.train.recipe import Beta, Schedule, Seed, Train, Training
from memofast.train.recipe_file import read_values, shipped


def each_once(numbers: list[int] | None, what: str) -> list[int] | None:
    """The numbers. Raises: `ValueError` where one is given twice."""
    for number, value in enumerate(numbers or ()):
        if value in numbers[:number]:
            raise ValueError(f"{what} {value} is given twice")
    return numbers


class AskedFor(Section):
    """kind: one class of several, any number of them, or a value. map: class of each label of the corpus, null to leave
    its samples out."""

    kind: Literal["single", "multi", "regression"] = "single"
    map: dict[str, str | None] | None = None


class FoldChoice(Section):
    """Which parts are trained on, chosen by and tested. scheme: one that the corpus keeps. by, count: folds of whole
    groups made here, `all`: one per group.

    Neither: the corpus's splits named train, validation and test. held_out: share of the training part that validation
    takes where the fold has none, whole groups of `by` where that is given. only: numbers of the folds to run; None:
    all.
    """

    scheme: str | None = None
    by: str | None = None
    count: Annotated[int, Field(ge=3, le=10**6)] | Literal["all"] | None = None
    train: str = "train"
    validation: str | None = "validation"
    test: str | None = "test"
    held_out: float = Field(0.1, gt=0, lt=1)
    only: list[Annotated[int, Field(ge=1, le=10**6)]] | None = Field(None, min_length=1)

    @field_validator("only")
    @classmethod
    def _each_once(cls, only: list[int] | None) -> list[int] | None:
        return each_once(only, "fold")

    @model_validator(mode="after")
    def _one_way(self) -> FoldChoice:
        named = [part for part in ("train", "validation", "test") if getattr(self, part) != part]
        if self.count is not None and not self.by:
            raise ValueError("count is of folds by a group; name it, as folds.by=speaker")
        if self.scheme and self.count is not None:
            raise ValueError("scheme and count are two ways to choose folds; leave one out")
        if named and (self.scheme or self.count is not None):
            raise ValueError(f"{named[0]} chooses a split, but folds have parts of their own; leave it out")
        return self


class Modalities(Section):
    """Conditions of l (text), v (visual) and a (speech). train: a mixture in equal parts. select: those whose mean
    score chooses the checkpoint.

    evaluate: those in the table. None: what the corpus and the model have; for evaluate every condition made of that.
    features: visual or speech -> stream of the corpus whose rows are read as that modality's, in place of its store.
    """

    train: list[str] | None = Field(None, min_length=1)
    select: list[str] | None = Field(None, min_length=1)
    evaluate: list[str] | None = Field(None, min_length=1)
    features: dict[Literal["visual", "speech"], str] = Field({})

    @field_validator("train", "select", "evaluate")
    @classmethod
    def _known(cls, conditions: list[str] | None) -> list[str] | None:
        for condition in conditions or ():
            if condition not in CONDITIONS:
                raise ValueError(f"{condition!r} is no condition; there are {', '.join(CONDITIONS)}")
        return conditions


class Tuning(Training):
    """warmup: share of the updates. share: of the training samples, drawn anew for every seed, the same share of each
    class (few-shot).

    validations: per epoch; patience: validations without a better one that end a run. metric: what chooses the
    checkpoint; None: ua, for several classes macro_f1, for values mae. seeds: one run of every fold for each. hide:
    share of the face and speech rows that each update hides, in spans, behind the model's mask vector; hide_columns:
    share of their columns that it sets to 0 in each sample: against learning few samples by heart. error: of values,
    what is learnt by, the `absolute`, the `squared`, or the `smooth` L1 one.
    """

    epochs: int = Field(10, gt=0, le=10**6)
    lr: float = Field(3e-5, gt=0, le=1e4)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip: float = Field(1.0, gt=0, le=1e9)
    warmup: float = Field(0.1, ge=0, lt=1)
    share: float = Field(1.0, gt=0, le=1)
    validations: int = Field(2, gt=0, le=10**6)
    patience: int = Field(5, gt=0, le=10**9)
    metric: str | None = None
    class_weights: Literal["none", "balanced"] = "none"
    smoothing: float = Field(0.0, ge=0, lt=1)
    error: Literal["absolute", "squared", "smooth"] = "absolute"
    loss: LabelLoss | None = None
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    decode: Literal["head", "nearest_centre"] = "head"
    schedule: Schedule = "linear"
    hide: float = Field(0.0, ge=0, lt=1)
    hide_columns: float = Field(0.0, ge=0, lt=0.99)
    seeds: list[Seed] = Field([42], min_length=1)

    @field_validator("hide", "hide_columns")
    @classmethod
    def _hides_something(cls, share: float, info: ValidationInfo) -> float:
        finest = {"hide": 1 / 1000, "hide_columns": 1 / 65536}[info.field_name]
        if 0 < share < finest or (share and info.field_name == "hide" and share > 1 - finest):
            raise ValueError(f"is 0 or from {finest:.2g} to {1 - finest:g}, as it is drawn no finer")
        return share

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        return each_once(seeds, "seed")

    def options(self, seed: int, samples: int, world: int) -> tuple[Train, int]:
        """The options of a trainer for one seed, and its updates per epoch. samples: to train on; world: processes."""
        per_epoch = math.ceil(samples / (self.samples * self.accumulate * world))
        updates, every = per_epoch * self.epochs, max(1, per_epoch // self.validations)
        shared = {name: getattr(self, name) for name in Training.model_fields}
        warmup = round(self.warmup * updates)
        return Train(
            **shared, mixing="sample", updates=updates, warmup=warmup, seed=seed, log_every=every, save_every=updates,
            schedule=self.schedule,
        ), per_epoch  # fmt: skip


class FineTuneRecipe(Section):
    """protocol `clean` chooses checkpoints on validation data; `last` trains on train and validation for all epochs and
    keeps the last update, for corpora too small to choose by; `paper` repeats MEmoBERT's habit: it trains on train and
    validation and chooses on test, and every number says so.

    context: what is read of the dialogue around an utterance, by families memobert and towers; None:
    nothing.
    baselines: whether simple ones stand in the table. settings_chosen_on: the data on which the recipe's settings were
    chosen, elsewhere, in words for the table. search: by option, as `train.lr`, the values to choose from inside the
    training part of every fold. inner_folds: in how many it is divided to choose, by the groups that folds keep whole,
    or `validation`: settings are chosen as the checkpoint is. losses: by a name, what is learnt by beside the
    labels."""

    corpus: FilePath = ""
    folds: FoldChoice = FoldChoice()
    model: EmotionSection = MemoBertEmotionSection()
    target: AskedFor = AskedFor()
    modalities: Modalities = Modalities()
    train: Tuning = Tuning()
    prompt: PromptSection | None = None
    context: Context | None = None
    protocol: Literal["clean", "last", "paper"] = "clean"
    settings_chosen_on: str = ""
    search: dict[str, list[Any]] = Field({})
    inner_folds: Annotated[int, Field(ge=2, le=100)] | Literal["validation"] = 3
    baselines: bool = True
    losses: dict[LossName, FurtherLoss] = Field({})

    @model_validator(mode="after")
    def _whole(self) -> FineTuneRecipe:
        if not self.corpus:
            raise ValueError("names no corpus; add corpus=FOLDER (memofast prepare makes one)")
        if self.protocol == "paper" and not (self.folds.scheme or self.folds.by or self.folds.test):
            raise ValueError("protocol paper chooses on test data, but folds.test is null")
        if self.train.class_weights != "none" and self.target.kind == "regression":
            raise ValueError("train.class_weights weighs classes, of which a regression has none; leave it out")
        if self.train.error != "absolute" and self.target.kind != "regression":
            raise ValueError("train.error is of values, for target.kind regression; leave it out")
        if self.train.smoothing and self.target.kind == "regression":
            raise ValueError("train.smoothing is of labels, which a regression has none of; leave it out")
        if self.train.loss is not None and self.target.kind != "single":
            raise ValueError("train.loss is of one class of several, for target.kind single; leave it out")
        if self.train.decode != "head" and self.target.kind != "single":
            raise ValueError("train.decode names one class of several, for target.kind single; leave it out")
        self._check_losses()
        self._check_lora()
        if self.prompt and (self.target.kind != "single" or not self.model.init):
            raise ValueError("a prompt names one class of several and starts from model.init; set both, or prompt=null")
        if self.train.compile and not FAMILIES[self.model.family].compiled:
            raise ValueError(
                f"train.compile is of families that one graph can hold, not of {self.model.family}; leave it out"
            )
        if (self.train.hide or self.train.hide_columns) and getattr(self.model, "cache", None):
            raise ValueError(
                "train.hide shows other rows in every update, each of which model.cache would keep; leave one out"
            )
        if self.context and not FAMILIES[self.model.family].in_dialogues:
            reading = " and ".join(name for name, family in FAMILIES.items() if family.in_dialogues)
            raise ValueError(f"context is read by model.family {reading}, not by {self.model.family}; leave it out")
        for name in self.context.rows if self.context else ():
            if name not in FAMILIES[self.model.family].in_dialogues:
                raise ValueError(
                    f"model.family {self.model.family} reads the words of other utterances alone; leave "
                    f"context.{name} out"
                )
        if self.context and self.prompt and self.context.query:
            raise ValueError("a prompt asks by a [MASK] of its own; set context.query=null beside it")
        if self.context and self.prompt and self.context.pool != "row":
            raise ValueError("a prompt reads the row of its own [MASK]; set context.pool=row beside it")
        if self.search and self.protocol == "paper":
            raise ValueError("search chooses inside the training part, protocol paper on test data; leave one out")
        if self.search and self.inner_folds == "validation" and self.protocol != "clean":
            raise ValueError("inner_folds validation needs such data, which protocol last trains on; give a number")
        if self.search and self.train.share < 1 and len(self.train.seeds) > 1:
            raise ValueError("search with train.share below 1 takes one seed, as each has other samples; give one")
        return self

    def _check_lora(self) -> None:
        if not getattr(self.model, "lora", None):
            return
        if self.train.compile:
            raise ValueError(
                "train.compile passes a model through torch.compile, which adapters were never; leave it out"
            )
        if self.prompt and self.prompt.soft_from_words:
            raise ValueError("prompt.soft_from_words changes rows of words, which model.lora keeps; leave one out")

    def _check_losses(self) -> None:
        if not self.losses:
            return
        if self.target.kind != "single":
            raise ValueError(
                f"losses.{next(iter(self.losses))} is of one class of several, not for target.kind {self.target.kind}; "
                "leave it out"
            )
        taught = next((name for name, loss in self.losses.items() if isinstance(loss, BY_TEACHERS)), None)
        if taught and self.search and self.inner_folds != "validation":
            raise ValueError(
                f"losses.{taught}: a teacher has learnt from what search holds out of the training part; set "
                "inner_folds=validation"
            )


_NOT_LEARNT_BY = ("seeds", "device", "threads", "loader_threads", "precision", "share", "metric")


def said_of_changes(recipe: FineTuneRecipe, overrides: Sequence[str]) -> FineTuneRecipe:
    """The recipe, whose `settings_chosen_on` also tells the settings that overrides change.

    Raises: `MemofastError` where the recipe does not say what its settings were chosen on.
    """
    names = [override.partition("=")[0] for override in overrides]
    if not recipe.settings_chosen_on:
        raise MemofastError(
            "the recipe does not say on what data its settings were chosen; add settings_chosen_on=... (validation of "
            "which corpus, or nothing: usual values)"
        )
    if "settings_chosen_on" in names:
        return recipe
    aside = {f"train.{name}" for name in _NOT_LEARNT_BY} | {"model.family"}
    changed = [
        override
        for name, override in zip(names, overrides, strict=True)
        if name.startswith(("model", "train", "prompt", "context", "losses", "modalities.train"))
        and name not in aside
        and not (name.startswith("model.") and name.endswith(".init"))
    ]
    if not changed:
        return recipe
    said = f"{recipe.settings_chosen_on}; changed for this run, by what is not said: {', '.join(changed)}"
    return recipe.model_copy(update={"settings_chosen_on": said})


def read(name: str | Sequence[str], overrides: Sequence[str] = ()) -> FineTuneRecipe:
    """Read a recipe, or several joined, see `recipe_file.read_values`. Raises: `MemofastError` for one that is missing
    or invalid."""
    values, source = read_values(name, overrides, shipped(fine_tuning=True), FineTuneRecipe)
    return checked(values, source, FineTuneRecipe)

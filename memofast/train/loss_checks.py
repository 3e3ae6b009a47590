"""Whether a recipe's losses fit its model, its corpus and its folds: asked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from torch import nn

from memofast.data import Split
from memofast.errors import MemofastError
from memofast.model.family import EmotionModel
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.further_losses import UncertaintyWeights, gathers_samples, weights_of
from memofast.train.loss_sections import (
    BY_REPRESENTATION,
    BY_TEACHERS,
    ApclSection,
    DistSection,
    SupervisedContrastSection,
)
from memofast.train.optimisation import parameter_groups
from memofast.train.teachers import check_teacher

_ENOUGH = 3  # samples, of which a correlation says more than +1 or -1
_TWO = 2  # samples, of which one can be alike another


def check_losses(recipe: FineTuneRecipe, model: EmotionModel, classes: Sequence[str], trained: Sequence[Split]) -> None:
    """Args: trained: the training part of every fold.

    Raises: `MemofastError` for losses that compare representations of a model that gives none or too narrow ones,
        for a head that cannot be centres, one loss where weights are to be learnt, teachers that do not fit or saw the
        test part of a fold, and `train.groups` of parameters that there are not.
    """
    weights, tuning = weights_of(model, recipe.train, recipe.losses), recipe.train
    needing = [f"losses.{name}" for name, options in recipe.losses.items() if isinstance(options, BY_REPRESENTATION)]
    needing += ["train.loss.detached"] if tuning.loss is not None and tuning.loss.detached else []
    if needing and not model.represents:
        raise MemofastError(
            f"{needing[0]}: this model gives no representation of a sample; take a memobert with a head, or towers"
        )
    if tuning.loss is not None and tuning.loss.detached and not recipe.losses:
        raise MemofastError(
            "train.loss.detached: nothing else trains the encoder; add a loss to losses, or leave it out"
        )
    if tuning.decode == "nearest_centre" and model.linear is None:
        raise MemofastError(
            "train.decode nearest_centre makes a linear head of centres, which this model has not; take a memobert "
            "with model.head=emocls, or towers"
        )
    if tuning.weighting == "uncertainty" and len(weights) < 2:
        raise MemofastError("train.weighting uncertainty weighs several losses, of which there is one; leave it out")
    for name, options in recipe.losses.items():
        if isinstance(options, ApclSection) and len(classes) > model.represents:
            raise MemofastError(
                f"losses.{name}: orthonormal prototypes of {len(classes)} classes do not fit into a representation of "
                f"{model.represents}; take a wider model"
            )
        if isinstance(options, BY_TEACHERS):
            _check_teachers(name, options, model, classes, trained)
    learnt = nn.ModuleDict({"model": model, "objectives": nn.ModuleDict()})
    if tuning.weighting == "uncertainty":
        learnt["objectives"]["weighting"] = UncertaintyWeights(weights)
    parameter_groups(learnt, tuning)


def _check_teachers(
    name: str, options: BY_TEACHERS, model: EmotionModel, classes: Sequence[str], trained: Sequence[Split]
) -> None:
    if len(trained) > 1:
        raise MemofastError(
            f"losses.{name}: a teacher has seen test parts of {len(trained)} folds; take one whose test part it has "
            "not seen"
        )
    width = model.represents if isinstance(options, BY_REPRESENTATION) else None
    for teacher in options.teachers:
        try:
            check_teacher(teacher, trained[0], classes, width)
        except MemofastError as error:
            raise MemofastError(f"losses.{name}: {error}") from None


def lines_on_losses(recipe: FineTuneRecipe) -> Iterator[str]:
    """What is learnt by beside the labels, and a warning where a loss compares too few samples."""
    if recipe.losses:
        named = [f"{name} ({loss.kind}, {loss.weight:g})" for name, loss in recipe.losses.items()]
        how = "; weights are learnt" if recipe.train.weighting == "uncertainty" else ""
        yield f"learns by the labels and {', '.join(named)}{how}"
    world = int(os.environ.get("WORLD_SIZE", 1))
    for name, loss in recipe.losses.items():
        gathers = gathers_samples(loss)
        if gathers and world == 1:
            yield f"losses.{name}: gather: ranks changes nothing with one process"
        samples = recipe.train.samples * (world if gathers else 1)
        update = samples * recipe.train.accumulate
        if isinstance(loss, DistSection) and samples < _ENOUGH and loss.between and not loss.queue:
            yield (
                f"warning: losses.{name} correlates the answers of {samples} samples, which teaches nothing below "
                f"{_ENOUGH}; raise train.samples or give it a queue"
            )
        if isinstance(loss, SupervisedContrastSection) and samples < _TWO:
            yield f"warning: losses.{name} compares samples, of which a batch has one; raise train.samples"
        elif isinstance(loss, SupervisedContrastSection) and update > samples:
            yield f"losses.{name} compares {samples} samples at a time (train.samples), not the {update} of an update"

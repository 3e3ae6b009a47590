"""The parts of every fold of a fine-tuning: what is learnt, what chooses the checkpoint, what is tested."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memofast.data import Corpus, Split
from memofast.data.corpus import sample_key
from memofast.data.folds import hold_out, leave_groups_out, read_fold, read_groups
from memofast.data.sampling import shuffled
from memofast.errors import MemofastError
from memofast.inference.split_predictions import class_counts, truth_of
from memofast.metrics.predictions import is_known
from memofast.objectives.label_space import LabelSpace
from memofast.train.fine_tuning_recipe import FineTuneRecipe, FoldChoice

_SITE = 255  # of the shuffle that few-shot shares are cut from, apart from those of epochs


@dataclass(frozen=True, eq=False)
class Fold:
    """name: of its folder. validation chooses the checkpoint, `selected_on` says of which data it is; None: the last
    update is kept (`nothing`).

    test: None where nothing is tested.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    selected_on: str


def make_folds(recipe: FineTuneRecipe, corpus: Corpus) -> list[Fold]:
    """The folds of a recipe.

    Raises: `MemofastError` for a fold, split or group that the corpus does not have, and for a sample in two parts.
    """
    choice = recipe.folds
    group_of = read_groups(corpus, choice.by) if choice.by else None
    if choice.scheme:
        count = corpus.description.get("folds", {}).get(choice.scheme, {}).get("count", 1)
        parts = {f"{choice.scheme}-{n:02}": read_fold(corpus, choice.scheme, n) for n in range(1, count + 1)}
    elif choice.by and choice.count is not None:
        made = leave_groups_out(group_of, None if choice.count == "all" else choice.count)
        parts = {
            f"{choice.by}-{n:02}": {part: Split.of_ids(corpus, part, ids) for part, ids in fold.items()}
            for n, fold in enumerate(made, 1)
        }
    else:
        parts = {"fixed": _named_splits(choice, corpus)}
    names = list(parts)
    for number in choice.only or ():
        if not 1 <= number <= len(names):
            raise MemofastError(f"folds.only names fold {number}; there are 1 to {len(names)}")
    chosen = [names[number - 1] for number in choice.only] if choice.only else names
    return [_fold(name, parts[name], recipe, corpus, group_of) for name in chosen]


def inner_folds(fold: Fold, recipe: FineTuneRecipe, target: LabelSpace) -> list[Fold]:
    """Folds of the training and validation parts of a fold, to choose settings by; see `FineTuneRecipe.inner_folds`.
    Nothing of the fold's test part is looked at.

    Groups of `folds.by`, or of the scheme, stay whole; without them every fold has its share of each class. With
    `train.share` they are of the samples that the first seed learns from.
    Raises: `MemofastError` where there are fewer groups than inner folds, or a class is in one of them alone.
    """
    if recipe.inner_folds == "validation":
        return [replace(fold, name="validation", test=None)]
    corpus, count = fold.train.corpus, recipe.inner_folds
    eligible = share_of_classes(fold.train, target, recipe.train.share, recipe.train.seeds[0])
    ids = [id for place, id in enumerate(fold.train.ids) if eligible is None or eligible[place]]
    ids += fold.validation.ids if fold.validation is not None else []
    by = kept_whole(recipe.folds, corpus)
    group_of = read_groups(corpus, by) if by else {}
    pool = Split.of_ids(corpus, "training", ids)
    truth = truth_of(pool, target)
    labels = truth.tolist() if target.kind == "single" else [0] * len(ids)
    of = {group_of.get(id, id): 0 if id in group_of else label for id, label in zip(ids, labels, strict=True)}
    if len(of) < count:
        raise MemofastError(
            f"fold {fold.name} has {len(of)} {by or 'sample'}s to choose settings on; set inner_folds to that or less"
        )
    order = sorted(of, key=lambda group: (of[group], sample_key("inner fold", group)))
    home = {group: place % count for place, group in enumerate(order)}
    found = []
    for number in range(count):
        tested = [id for id in ids if home[group_of.get(id, id)] == number]
        taught = [id for id in ids if home[group_of.get(id, id)] != number]
        parts = {"train": Split.of_ids(corpus, "train", taught), "test": Split.of_ids(corpus, "test", tested)}
        found.append(_fold(f"inner-{number + 1}", parts, recipe, corpus, group_of or None))
        check_classes(found[-1], target, None)
    return found


def kept_whole(choice: FoldChoice, corpus: Corpus) -> str | None:
    """The groups that folds keep whole: `folds.by`, or what the scheme was made by; None where there are none."""
    schemes = corpus.description.get("folds", {})
    return choice.by or (schemes.get(choice.scheme, {}).get("by") if choice.scheme else None)


def _named_splits(choice: FoldChoice, corpus: Corpus) -> dict[str, Split]:
    """The corpus's own splits; a validation split that is not there is held out of the training part later."""
    parts = {"train": corpus.split(choice.train)}
    if choice.validation and (choice.validation in corpus.splits or choice.validation != "validation"):
        parts["validation"] = corpus.split(choice.validation)
    if choice.test and (choice.test in corpus.splits or choice.test != "test"):
        parts["test"] = corpus.split(choice.test)
    return parts


def _fold(
    name: str, parts: dict[str, Split], recipe: FineTuneRecipe, corpus: Corpus, group_of: dict[str, str] | None
) -> Fold:
    train, validation, test = (parts.get(part) for part in ("train", "validation", "test"))
    if train is None:
        raise MemofastError(f"fold {name} of corpus {corpus.path} has no training part")
    _check_apart(name, parts)
    if recipe.protocol == "paper" and test is None:
        raise MemofastError(f"protocol paper chooses on test data, but fold {name} of {corpus.path} has none")
    if recipe.protocol != "clean":
        both = Split.of_ids(corpus, "train and validation", train.ids + (validation.ids if validation else []))
        if recipe.protocol == "paper":
            return Fold(name, both, test, test, "test")
        return Fold(name, both, None, test, "nothing")
    if validation is None:
        kept, held = hold_out(train.ids, recipe.folds.held_out, group_of)
        if not kept or not held:
            raise MemofastError(f"fold {name}: its training part cannot be divided into training and validation")
        train, validation = Split.of_ids(corpus, "train", kept), Split.of_ids(corpus, "validation", held)
    return Fold(name, train, validation, test, "validation")


def _check_apart(name: str, parts: dict[str, Split]) -> None:
    home: dict[str, str] = {}
    for part, split in parts.items():
        for id in split.ids:
            if home.setdefault(id, part) != part:
                raise MemofastError(f"fold {name} leaks: sample {id!r} is in {home[id]} and in {part}")


def share_of_classes(split: Split, target: LabelSpace, share: float, seed: int) -> np.ndarray | None:
    """Which samples take part when a share of each class is drawn [n] bool, at least one of each; None for all.

    Samples are taken in the order of an epoch's shuffle, so that a larger share contains a smaller one of the same
    seed. Values and sets of labels are drawn as one class.
    """
    if share == 1:
        return None
    truth = truth_of(split, target)
    classes = truth if target.kind == "single" else np.zeros(len(split), np.int64)
    order = shuffled(split.keys, seed, 0, _SITE)
    taken = np.zeros(len(split), bool)
    for label in np.unique(classes[classes >= 0]):
        members = order[classes[order] == label]
        taken[members[: max(1, round(share * len(members)))]] = True
    return taken


def check_classes(fold: Fold, target: LabelSpace, eligible: np.ndarray | None) -> None:
    """Raises: `MemofastError` where there are not two classes, one has no training sample, or nothing is known of a
    part."""
    if target.kind == "single" and len(target.classes) < 2:
        raise MemofastError(
            f"corpus {fold.train.corpus.path} has {len(target.classes)} classes to learn; there must be two"
        )
    parts = {"training": fold.train, fold.selected_on: fold.validation, "test": fold.test}
    for part, split in parts.items():
        if split is not None and not is_known(target.kind, truth_of(split, target)).any():
            raise MemofastError(f"no sample of the {part} part of fold {fold.name} has a label or value")
    if target.kind == "regression":
        return
    truth = truth_of(fold.train, target)
    counts = class_counts(truth if eligible is None else truth[eligible], len(target.classes))
    for name, count in zip(target.classes, counts, strict=True):
        if not count:
            raise MemofastError(
                f"class {name} has no training sample in fold {fold.name}; leave it out with target.map, or choose "
                "other folds"
            )


def trivial_answers(folds: list[Fold], target: LabelSpace) -> dict[str, Any]:
    """What the majority predictor says, by fold: the commonest class of its training part, the labels most samples
    have, or the mean value."""
    found = {}
    for fold in folds:
        truth = truth_of(fold.train, target)
        if target.kind == "single":
            found[fold.name] = target.classes[int(class_counts(truth, len(target.classes)).argmax())]
        elif target.kind == "multi":
            often = np.nanmean(truth, axis=0) >= 0.5
            found[fold.name] = [name for name, common in zip(target.classes, often, strict=True) if common]
        else:
            found[fold.name] = float(np.nanmean(truth))
    return found

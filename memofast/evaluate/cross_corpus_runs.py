"""Several models on several corpora: each model's predictions in the labels of each corpus, for the matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from memofast.data import Corpus, Split
from memofast.data.conditions import CONDITIONS
from memofast.errors import MemofastError
from memofast.evaluate.cross_corpus import LabelMap, Pair, cross_corpus, foreign_predictions
from memofast.evaluate.model_on_corpus import Opened, own_labels, predict_on, target_on
from memofast.inference.split_predictions import label_space_of
from memofast.metrics.predictions import Predictions
from memofast.model.compatibility import conditions_for

Maps = Mapping[str, Mapping[str, LabelMap]]  # model, corpus


def read_maps(path: Path) -> Maps:
    """A YAML file `MODEL: {CORPUS: {class of the model: label of the corpus or null}}`. Raises: `MemofastError` for
    anything else."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MemofastError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not _is_maps(found):
        raise MemofastError(f"{path} is no file of label maps; write MODEL: {{CORPUS: {{CLASS: LABEL or null}}}}")
    return found


def _is_maps(found: Any) -> bool:
    if not isinstance(found, dict) or not all(isinstance(maps, dict) for maps in found.values()):
        return False
    labels = [labels for maps in found.values() for labels in maps.values()]
    return all(
        isinstance(one, dict) and all(isinstance(k, str) and isinstance(v, str | None) for k, v in one.items())
        for one in labels
    )


def names_of_models(models: Sequence[Opened]) -> list[str]:
    """The corpus that each was fine-tuned on, or its folder where that is not known; where names are alike, corpus and
    folder."""
    short = [opened.origin.corpus.name if opened.origin.corpus else opened.origin.name for opened in models]
    long = [f"{name} ({opened.origin.name})" for name, opened in zip(short, models, strict=True)]
    names = [one if short.count(one) == 1 else other for one, other in zip(short, long, strict=True)]
    if len(set(names)) < len(names):
        raise MemofastError(f"two models are named {names[0]}; give folders of other names")
    return names


def matrices(
    models: Mapping[str, Opened], splits: Sequence[Split], maps: Maps, asked: Sequence[str] | None, metric: str
) -> tuple[list[dict[str, Any]], dict[str, Predictions], list[str]]:
    """A matrix per condition (None: the fullest that every pair has), the predictions by file name, lines about label
    maps.

    Raises: `MemofastError` where a pair needs a label map, before any model is run, and as `cross_corpus`.
    """
    if len({split.corpus.name for split in splits}) < len(splits):
        raise MemofastError("two of the corpora have the same name; prepare one with --name")
    pairs = {(name, split.corpus.name): (opened, split) for name, opened in models.items() for split in splits}
    labels, lines = {}, []
    for (name, on), (opened, split) in pairs.items():
        labels[name, on], line = label_map(name, opened, split.corpus, maps)
        lines += [line] if line else []
    conditions = _shared(pairs, asked)
    said = {
        pair: _own(opened, split, conditions)
        if _is_own(opened, split.corpus, maps.get(pair[0], {}))
        else _foreign(opened, split, conditions)
        for pair, (opened, split) in pairs.items()
    }
    chosen_by = {pair: opened.origin.selected_on(split.corpus) for pair, (opened, split) in pairs.items()}
    used = {pair: one for pair, one in labels.items() if one}
    found = []
    for condition in conditions:
        predictions = {pair: one[condition] for pair, one in said.items()}
        found.append({"condition": condition, **cross_corpus(predictions, used, metric, chosen_by)})
    files = {
        f"{name} on {on}-{condition}": one[condition] for (name, on), one in said.items() for condition in conditions
    }
    return found, files, lines


def label_map(name: str, opened: Opened, corpus: Corpus, maps: Maps) -> tuple[LabelMap, str]:
    """What each class of a model is among the labels of a corpus, and a line that says so; empty: predictions need no
    map.

    Raises: `MemofastError` where neither a map nor the same class names say it.
    """
    target, given = label_space_of(opened.model), maps.get(name, {})
    if target.kind == "regression":
        return {}, ""
    if target.kind != "single":
        raise MemofastError(f"{name} names several labels of a sample; a matrix is of models that name one")
    other = {name: None for name in opened.model.outputs if name not in target.classes}
    if _is_own(opened, corpus, given):
        return ({} if name == corpus.name else {one: one for one in target.classes} | other), ""
    theirs = own_labels(corpus, target.kind).classes
    if corpus.name not in given:
        if set(theirs) != set(target.classes):
            raise MemofastError(
                f"{name} on {corpus.name}: the model has the classes {', '.join(target.classes)}, the corpus "
                f"{', '.join(theirs)}; "
                "write what each class is with --maps FILE"
            )
        return {one: one for one in target.classes} | other, f"{name} on {corpus.name}: the same class names"
    labels = given[corpus.name]
    if unknown := [label for label in labels.values() if label is not None and label not in theirs]:
        raise MemofastError(
            f"{name} on {corpus.name}: the label map names {unknown[0]!r}; the corpus has {', '.join(theirs)}"
        )
    meaning = ", ".join(f"{one} is {label or 'left out'}" for one, label in labels.items())
    return dict(labels) | other, f"{name} on {corpus.name}: {meaning}"


def _is_own(opened: Opened, corpus: Corpus, given: Mapping[str, LabelMap]) -> bool:
    """Whether a model meets the corpus that it was fine-tuned on, whose labels it knows."""
    return opened.origin.is_of(corpus) and corpus.name not in given


def _shared(pairs: Mapping[Pair, tuple[Opened, Split]], asked: Sequence[str] | None) -> tuple[str, ...]:
    possible = [conditions_for(opened.model, split.corpus, asked) for opened, split in pairs.values()]
    both = tuple(condition for condition in CONDITIONS if all(condition in one for one in possible))
    return tuple(asked) if asked else both[-1:]


def _own(opened: Opened, split: Split, conditions: Sequence[str]) -> dict[str, Predictions]:
    return predict_on(opened, split, target_on(opened, split.corpus), conditions)


def _foreign(opened: Opened, split: Split, conditions: Sequence[str]) -> dict[str, Predictions]:
    """Predictions by condition, in the classes of the model and of the corpus."""
    if opened.model.kind == "regression":
        return _own(opened, split, conditions)
    theirs = own_labels(split.corpus, "single")
    found = {}
    for condition, said in predict_on(opened, split, theirs, conditions).items():
        # its truth counts the corpus's labels, not the model's classes
        truth = [theirs.classes[number] if number >= 0 else None for number in said.truth]
        found[condition] = foreign_predictions(said.ids, said.scores, opened.model.outputs, truth, theirs.classes)
    return found

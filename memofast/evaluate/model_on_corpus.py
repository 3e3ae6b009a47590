"""A model on a corpus: which conditions both have, what the corpus's labels mean to the model, and its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from memofast.data import Corpus, Split
from memofast.data.conditions import modalities_of
from memofast.errors import MemofastError
from memofast.inference.dialogues import as_read
from memofast.inference.split_predictions import label_space_of, predict_split, truth_of
from memofast.metrics.predictions import Predictions, is_known
from memofast.model.compatibility import check_longest, check_shortest, check_widths, check_words
from memofast.model.families import open_emotion_model
from memofast.model.family import EmotionModel
from memofast.model.folder import model_folder
from memofast.objectives.label_space import VALUE, LabelSpace
from memofast.prepare.text.vocabulary import check_tokenizer
from memofast.train.origin import Origin, origin_of

LabelMap = Mapping[str, str | None]


@dataclass(frozen=True, eq=False)
class Opened:
    """A trained emotion model with its origin. path: as the user gave it."""

    path: Path
    model: EmotionModel
    origin: Origin


def open_model(path: Path, device: str = "cpu") -> Opened:
    """Raises: `MemofastError` where there is no emotion model, or an unfinished run."""
    origin = origin_of(path)
    return Opened(path, open_emotion_model(path).to(device), origin)


def target_on(opened: Opened, corpus: Corpus, labels: LabelMap | None = None) -> LabelSpace:
    """What the labels of a corpus mean to a model. labels: class by label; labels that are classes need no entry.

    Raises: `MemofastError` for a label that is neither in the map nor a class, a map of what is not there, a corpus
        without labels.
    """
    target = label_space_of(opened.model, opened.origin.mapping_for(corpus))
    if target.kind == "regression":
        if labels:
            raise MemofastError(f"{opened.path} says values, which need no --map")
        target.within(corpus)
        return target
    given = LabelSpace.of_corpus(corpus, target.kind).classes
    if labels is None and target.mapping is None and not set(given) & set(target.classes):
        raise MemofastError(
            f"corpus {corpus.path} has the labels {', '.join(given)}, the model the classes "
            f"{', '.join(target.classes)}; "
            "say what they mean with --map LABEL=CLASS"
        )
    for label, name in (labels or {}).items():
        if label not in given:
            raise MemofastError(f"--map names label {label!r}; corpus {corpus.path} has {', '.join(given)}")
        if name is not None and name not in target.classes:
            raise MemofastError(f"--map names class {name!r}; model {opened.path} has {', '.join(target.classes)}")
    known = {name: name for name in given if name in target.classes} | dict(target.mapping or {}) | dict(labels or {})
    if missing := [label for label in given if label not in known]:
        raise MemofastError(
            f"label {missing[0]!r} of corpus {corpus.path} is not in the label map and no class of the model "
            f"({', '.join(target.classes)}); "
            f"add --map {missing[0]}=CLASS, or --map {missing[0]}=null to leave its samples out"
        )
    return LabelSpace(target.kind, target.classes, known)


def own_labels(corpus: Corpus, kind: str) -> LabelSpace:
    """The labels of a corpus as they are. Raises: `MemofastError` where it has none."""
    target = LabelSpace.of_corpus(corpus, kind)
    target.within(corpus)
    return target


def check_labelled(split: Split, target: LabelSpace) -> None:
    """Raises: `MemofastError` where no sample of a split has a label that counts."""
    truth = truth_of(split, target)
    if not is_known(target.kind, truth).any():
        what = "value" if target.classes == (VALUE,) else "label that the model has a class for"
        raise MemofastError(
            f"no sample of split {split.name} of corpus {split.corpus.path} has a {what}; "
            "evaluate a split that has labels"
        )


def predict_on(opened: Opened, split: Split, target: LabelSpace, conditions: Sequence[str]) -> dict[str, Predictions]:
    """Predictions by condition. Raises: `MemofastError` where a split has no labels, or words in other pieces than the
    model's, or predictions are not finite."""
    check_widths(opened.model, opened.path, split.corpus)
    if "text" in modalities_of("".join(conditions)):
        check_tokenizer(split.corpus, model_folder(opened.path), str(opened.path))
    split = as_read(opened.model, split, opened.path)
    check_words(opened.model, split)
    check_longest(opened.model, split, modalities_of("".join(conditions)))
    check_shortest(opened.model, split, conditions)
    check_labelled(split, target)
    return {condition: predict_split(opened.model, split, target, "fp32", condition) for condition in conditions}

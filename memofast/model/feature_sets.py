"""Which extractors made the rows that a model reads: what corpora say of theirs, and what a model's folder keeps."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from memofast.data.corpus import Corpus
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError
from memofast.files import write_json
from memofast.model.folder import model_folder, model_type
from memofast.schemas import Name, Schema, read_described

FEATURE_SETS = "features.json"
_FACES_BY = ", faces by "  # what follows names who found the faces, whose rows are alike


@dataclass(frozen=True)
class FeatureSet:
    """extractor: what made the rows, and what became of its frames. fingerprint: of its weights and settings, empty
    where it is not known, as of rows that were imported. width: of a row."""

    extractor: str
    fingerprint: str
    width: int

    def other_than(self, other: FeatureSet) -> bool:
        """Whether both are known and not the same."""
        return bool(self.fingerprint and other.fingerprint) and self._name != other._name

    def like(self, other: FeatureSet) -> bool:
        """Whether both are known and the same, or say the same of where they come from."""
        return self._name == other._name

    @property
    def _name(self) -> tuple[str, str]:
        return self.extractor, self.fingerprint

    def __str__(self) -> str:
        return f"{self.extractor or 'rows of an unnamed extractor'} ({self.fingerprint or 'no fingerprint'})"


def feature_sets_of(corpus: Corpus) -> dict[str, FeatureSet]:
    """By modality what made a corpus's feature rows."""
    return {
        modality: FeatureSet(
            corpus.stores[modality].meta.get("extractor", "").partition(_FACES_BY)[0],
            corpus.stores[modality].meta.get("fingerprint", ""),
            corpus.width(modality),
        )
        for modality in FEATURES
        if modality in corpus.stores
    }


def joined(corpora: Sequence[Corpus]) -> tuple[dict[str, FeatureSet], list[str]]:
    """By modality what made the rows of corpora that are read together, and lines where that is not known of all.

    Raises: `MemofastError` where two were made by other extractors.
    """
    found: dict[str, tuple[FeatureSet, Corpus]] = {}
    lines = []
    for corpus in corpora:
        for modality, own in feature_sets_of(corpus).items():
            first, where = found.setdefault(modality, (own, corpus))
            if own.other_than(first):
                raise MemofastError(
                    f"{modality} rows are of {first} in corpus {where.path} and of {own} in {corpus.path}; prepare "
                    "them with the same extractor, or leave one out"
                )
            if not own.like(first):
                lines.append(
                    f"{modality} rows are of {first} in corpus {where.path} and of {own} in {corpus.path}: whether "
                    "these are alike is not known"
                )
            if own.fingerprint and not first.fingerprint:
                found[modality] = own, corpus
    return {modality: own for modality, (own, _) in found.items()}, lines


def keep_feature_sets(sets: Mapping[str, FeatureSet], folder: Path) -> None:
    """Write `features.json` into the folder of a model; nothing for one of words alone."""
    if sets:
        write_json(folder / FEATURE_SETS, {modality: asdict(own) for modality, own in sets.items()})


class _FeatureSet(Schema):
    extractor: Name
    fingerprint: Name
    width: Annotated[int, Field(ge=0, le=2**18)]


class _FeatureSets(Schema):
    visual: _FeatureSet | None = None
    speech: _FeatureSet | None = None


def feature_sets_in(origin: str | Path) -> dict[str, FeatureSet]:
    """By modality what made the rows that a model was trained on, by its folder or run; none of a folder without
    `features.json`, as older ones are, and of a file. Raises: `MemofastError` for a damaged one."""
    path = model_folder(Path(origin)) / FEATURE_SETS
    if not os.path.lexists(path):
        return {}
    remedy = "restore it, or remove it where the extractors are not to be compared"
    found = read_described(path, _FeatureSets, "a record of extractors", remedy)
    return {
        modality: FeatureSet(own["extractor"], own["fingerprint"], own["width"])
        for modality in FEATURES
        if (own := found.get(modality)) is not None
    }


def check_feature_sets(origin: str | Path, corpus: Corpus) -> None:
    """Raises: `MemofastError` where the rows of a corpus are of another extractor than those that the model from
    `origin` was trained on; those of another width are for others to refuse, or for a network to make rows of."""
    trained = feature_sets_in(origin)
    for modality, own in feature_sets_of(corpus).items():
        alike = modality in trained and own.width == trained[modality].width
        if alike and own.other_than(trained[modality]):
            raise MemofastError(
                f"{origin} was trained on {modality} rows of {trained[modality]}, those of corpus {corpus.path} are of "
                f"{own}; prepare it with the same extractor"
            )


def unknown_feature_sets(origin: str | Path, corpus: Corpus, reads: Container[str] = FEATURES) -> list[str]:
    """Lines on modalities of which nobody can say whether a corpus has what the model from `origin` was trained on;
    none where that is a BERT, which was trained on words alone. reads: modalities that the model reads."""
    folder = model_folder(Path(origin))
    if folder.is_dir() and model_type(folder) == "bert":
        return []
    trained, lines = feature_sets_in(origin), []
    for modality, own in feature_sets_of(corpus).items():
        theirs = trained.get(modality)
        if modality not in reads or (theirs and (own.like(theirs) or own.other_than(theirs))):
            continue
        if theirs and own.width != theirs.width:
            continue
        lines.append(
            f"{modality} rows of corpus {corpus.path} are of {own}, {origin} was trained on "
            + (f"those of {theirs}" if theirs else "those of an extractor that its folder does not name")
            + ": whether these are alike is not known"
        )
    return lines

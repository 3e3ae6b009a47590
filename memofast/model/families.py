"""The families of models there are, and models opened by what their folder says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Discriminator, Tag

from memofast.errors import MemofastError
from memofast.files import remove, temporary_of, writing
from memofast.model.adapters.kept import FILES as ADAPTED
from memofast.model.adapters.kept import holds_adapters
from memofast.model.family import EmotionModel, Encoder, Family
from memofast.model.folder import model_folder, model_type
from memofast.model.lstm_fusion.family import LSTM_FUSION
from memofast.model.memobert.converting import to_folder
from memofast.model.memobert.family import MEMOBERT
from memofast.model.memobert_flow.family import MEMOBERT_FLOW
from memofast.model.perceiver.family import PERCEIVER
from memofast.model.sequence.family import SEQUENCE
from memofast.sections import Section

_EVERY = (MEMOBERT, LSTM_FUSION, MEMOBERT_FLOW, SEQUENCE, PERCEIVER)
FAMILIES: dict[str, Family] = {family.name: family for family in _EVERY}


def family_of(folder: Path) -> Family:
    """The family of the model in a folder, or in that of the run that made it; a file is one of the original MEmoBERT.

    Raises: `MemofastError` where the folder holds no model, or one of another kind.
    """
    if (folder := model_folder(folder)).is_file():
        return MEMOBERT
    kind = model_type(folder)
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = " or ".join(map(repr, FAMILIES))
        remedy = "start from it with from_bert" if kind == "bert" else "give a memofast checkpoint"
        raise MemofastError(f"{folder}: holds a {kind!r} model, not {known}; {remedy}")
    return FAMILIES[kind]


def open_emotion_model(folder: Path) -> EmotionModel:
    """A trained emotion model in evaluation mode, from its folder or that of the run that made it, or a file of the
    original MEmoBERT.

    Raises: `MemofastError` where there is no model, or none that names emotions.
    """
    return family_of(folder).open(model_folder(folder))


def open_encoder(folder: Path) -> Encoder:
    """The encoder of a model in evaluation mode, from its folder or that of the run that made it.

    Raises: `MemofastError` where the folder holds no model, or one without hidden states.
    """
    family = family_of(folder)
    if family.open_encoder is None:
        having = ", ".join(family.name for family in FAMILIES.values() if family.open_encoder)
        raise MemofastError(f"{folder} holds a {family.name} model, which has no hidden states; give one of {having}")
    return family.open_encoder(model_folder(folder))


def export_model(folder: Path, path: Path) -> list[str]:
    """Write a trained emotion model for other runtimes. Returns: the names of the program's inputs, in their order.

    Raises: `MemofastError` where the folder holds no emotion model, or one that cannot be exported.
    """
    family = family_of(folder)
    if family.export is None:
        having = ", ".join(family.name for family in FAMILIES.values() if family.export)
        raise MemofastError(f"{folder} holds a {family.name} model, which cannot be exported; give one of {having}")
    return family.export(family.open(model_folder(folder)), path)


def file_to_folder(path: Path, out: Path, heads: int | None = None, classes: Sequence[str] | None = None) -> list[str]:
    """Make a model's folder of a file of the original MEmoBERT, see `memobert.converting.to_folder`."""
    return to_folder(path, out, heads, classes)


def folder_to_file(folder: Path, out: Path) -> list[str]:
    """Make a file of the original MEmoBERT of a model's folder or of a run. Returns: lines on it.

    Raises: `MemofastError` where the folder holds no model, or one that the original has no names for.
    """
    family = family_of(folder)
    if family.to_file is None:
        raise MemofastError(
            f"{folder} holds a {family.name} model, and the original has names for {MEMOBERT.name} alone"
        )
    return family.to_file(model_folder(folder), out)


def merge_to_folder(folder: Path, out: Path) -> list[str]:
    """Make an ordinary model's folder of one, or of a run, that holds adapters of another model. Returns: lines on it.

    Raises: `MemofastError` where it holds none, what they adapt is missing or has changed, or `out` is there.
    """
    own = model_folder(folder)
    if not own.is_dir() or not holds_adapters(own):
        raise MemofastError(f"{folder}: holds no adapters to merge; of a model folder --out is FILE.pt")
    if out.exists():
        raise MemofastError(f"{out} is there; choose a new folder")
    model = open_emotion_model(own)
    scratch = temporary_of(out)
    with writing(out):
        scratch.mkdir(parents=True)
        try:
            model.save_pretrained(scratch)
            for file in own.iterdir():  # as of its vocabulary and preparation
                if file.is_file() and file.name not in ADAPTED and not (scratch / file.name).exists():
                    shutil.copyfile(file, scratch / file.name)
            scratch.rename(out)
        finally:
            remove(scratch)
    return [f"{out}: {own} with what it adapts, {sum(p.numel() for p in model.parameters()):,} parameters"]


def _family_named(values: Any) -> str:
    """The family that a recipe's section names; MemoBert's where it names none."""
    if isinstance(values, dict):
        return str(values.get("family", MEMOBERT.name))
    return getattr(values, "family", MEMOBERT.name)  # what is no section is refused as one of it


def _union(sections: dict[str, type[Section]]) -> Any:
    return Annotated[
        Union[*(Annotated[section, Tag(name)] for name, section in sections.items())], Discriminator(_family_named)
    ]


# a recipe's section on the model, of whichever family it names
EmotionSection = _union({family.name: family.section for family in FAMILIES.values()})
PreTrainingSection = _union(
    {family.name: family.pre_training.section for family in FAMILIES.values() if family.pre_training}
)

"""Trained models that another one learns from: what they say of its training samples, computed once before it
learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from memofast.data import Corpus, PackedBatch, Split
from memofast.data.conditions import keep, modalities_of
from memofast.errors import MemofastError
from memofast.inference.dialogues import as_read
from memofast.inference.loop import run_over
from memofast.model.compatibility import (
    check_longest,
    check_shortest,
    check_widths,
    check_words,
    conditions_for,
    shared_modalities,
)
from memofast.model.families import open_emotion_model
from memofast.model.family import EmotionModel
from memofast.model.folder import model_folder
from memofast.prepare.text.vocabulary import check_tokenizer
from memofast.train.loss_sections import TeacherSection


class Taught(nn.Module):
    """What teachers say of samples, by their keys; computed anew whenever a run is opened.

    keys [n] int64, ascending; values: of each teacher [n, width] fp32.
    """

    def __init__(self, keys: Tensor, values: Sequence[Tensor]):
        super().__init__()
        self.register_buffer("keys", keys, persistent=False)
        self.names = [f"teacher_{number}" for number in range(len(values))]
        for name, one in zip(self.names, values, strict=True):
            self.register_buffer(name, one, persistent=False)

    def of(self, keys: Tensor) -> list[Tensor]:
        """Of each teacher [m, width]; keys [m] int64, all of them among those it was made of."""
        places = torch.searchsorted(self.keys, keys)
        return [getattr(self, name)[places] for name in self.names]


def open_teacher(section: TeacherSection, corpus: Corpus, classes: Sequence[str]) -> tuple[EmotionModel, str]:
    """A teacher in evaluation mode, and the condition that it is shown.

    Raises: `MemofastError` where the folder holds no emotion model, one of other classes, or one that cannot read the
        corpus.
    """
    model = open_emotion_model(Path(section.path))
    if model.kind != "single" or sorted(model.outputs) != sorted(classes):
        raise MemofastError(
            f"teacher {section.path} names {', '.join(model.outputs)}, the model {', '.join(classes)}; give a teacher "
            "of the same classes"
        )
    check_widths(model, section.path, corpus)
    (condition,) = conditions_for(model, corpus, [section.condition or shared_modalities(model, corpus)])
    return model, condition


def check_teacher(section: TeacherSection, split: Split, classes: Sequence[str], width: int | None) -> None:
    """Raises: `MemofastError` as `open_teacher`, and for samples that a teacher cannot read, words in other pieces than
    its own, or representations that are not `width` wide; None: they are not asked for."""
    model, condition = open_teacher(section, split.corpus, classes)
    split = as_read(model, split, section.path)
    if "text" in modalities_of(condition):
        check_tokenizer(split.corpus, model_folder(Path(section.path)), "teacher")
    check_words(model, split)
    check_longest(model, split, modalities_of(condition))
    check_shortest(model, split, [condition])
    if width is not None and model.represents != width:
        has = f"representations {model.represents} wide" if model.represents else "no representation"
        raise MemofastError(
            f"teacher {section.path} gives {has}, the model's are {width} wide; distil its answers with kind dist"
        )


def taught(
    teachers: Sequence[TeacherSection],
    splits: Sequence[Split],
    classes: Sequence[str],
    represented: bool,
    device: torch.device,
) -> Taught:
    """What teachers say of all samples of splits: logits of these classes, or representations."""
    keys = np.concatenate([split.keys for split in splits])
    keys, first = np.unique(keys, return_index=True)
    values = []
    for section in teachers:
        model, condition = open_teacher(section, splits[0].corpus, classes)
        model.to(device)
        read = [as_read(model, split, section.path) for split in splits]
        said = [_said(model, condition, split, classes, represented, device) for split in read]
        values.append(torch.from_numpy(np.concatenate(said)[first]))
    return Taught(torch.from_numpy(keys), values)


def _said(
    model: EmotionModel, condition: str, split: Split, classes: Sequence[str], represented: bool, device: torch.device
) -> np.ndarray:
    order = [model.outputs.index(name) for name in classes]

    def said(batch: PackedBatch) -> dict[str, Tensor]:
        return {"said": model.represented(batch) if represented else model(batch)[:, order]}

    found = np.empty((len(split), model.represents if represented else len(order)), np.float32)
    for results in run_over(
        split, said, device, "answers of a teacher", f" of corpus {split.corpus.path}",
        shown=lambda batch: keep(batch, condition),
    ):  # fmt: skip
        found[results.indices] = results.found["said"]
    return found

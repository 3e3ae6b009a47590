"""Emotional faces: of a clip's faces, those are hidden that show something else than a neutral one.

Source: MEmoBERT's merfr and merckl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.errors import MemofastError, nearest
from memofast.objectives.face_emotions import LabelledFaces, VisualEmotion
from memofast.objectives.features import VisualRegression
from memofast.objectives.objective import Objective, ObjectiveOptions, Room
from memofast.objectives.ratios import Ratio
from memofast.ops.philox import Purpose, below, draw, rows_of, stream_key
from memofast.ops.row_lists import capacity as entries
from memofast.ops.row_lists import threshold


class EmotionalOptions(ObjectiveOptions):
    """probability: that a face which is not neutral is hidden. neutral: the neutral class of the soft labels, by its
    name in the corpora or its number."""

    probability: Ratio = (3, 10)
    neutral: str | int = Field("neutral", union_mode="left_to_right")

    @field_validator("probability")
    @classmethod
    def _something_hidden(cls, probability: tuple[int, int]) -> tuple[int, int]:
        if not probability[0]:
            raise ValueError("0 hides one face of each clip, whatever it shows; use an independent policy")
        return probability


class EmotionalFaces(LabelledFaces):
    """Hides each face whose largest soft label is not the neutral class with a probability, and others never; where
    this hides none of a sample, one face of it, whichever.

    Words are draws of (rng, purpose, site, sample key): word 0 at (position of the face, block 0) decides; word 0 at
    (0, 1) names the one face.
    """

    Options = EmotionalOptions

    def __init__(self, name: str, options: EmotionalOptions):
        Objective.__init__(self, name, options)
        self._neutral = options.neutral if isinstance(options.neutral, int) else None

    def name_classes(self, classes: Mapping[str, Sequence[str]]) -> None:
        names, neutral = list(classes.get("soft_labels", [])), self.options.neutral
        if not names:
            return
        if isinstance(neutral, str) and neutral not in names:
            raise MemofastError(
                f"objectives.{self.name}.neutral: the soft labels have no class {neutral!r}{nearest(neutral, names)}; "
                f"they are {', '.join(names)}: name the neutral one, or give its number, from 0"
            )
        self._neutral = names.index(neutral) if isinstance(neutral, str) else neutral
        self._check_number(len(names))

    def _check_number(self, classes: int) -> None:
        if not 0 <= self._neutral < classes:
            raise MemofastError(
                f"objectives.{self.name}.neutral: there are {classes} classes of soft labels, from 0 to {classes - 1}, "
                f"no {self._neutral}; choose one of them"
            )

    def mask(self, batch: PackedBatch, selected: Tensor, rng: Tensor, purpose: Purpose) -> tuple[Tensor, Tensor]:
        offsets, faces = batch.visual_offsets, batch.visual.shape[0]
        source = torch.arange(faces, dtype=torch.int32, device=offsets.device)
        if "soft_labels" not in batch.targets:  # then no sample of the batch is selected
            return source, source[:0]
        if self._neutral is None:
            raise MemofastError(
                f"objective {self.name}: which class is {self.options.neutral!r} is not known here; "
                "give neutral its number, from 0"
            )
        self._check_number(batch.targets["soft_labels"].shape[1])
        sample, position = rows_of(offsets, int(offsets[-1]))
        key, zero = stream_key(rng, purpose, self.site), torch.zeros_like(position)
        shown = batch.targets["soft_labels"][: len(sample)].argmax(-1)
        words = draw(key, batch.sample_keys[sample], position, zero)[:, 0]
        hidden = (shown != self._neutral) & (words < threshold(self.options.probability))
        counts = torch.zeros(batch.samples, dtype=torch.int64, device=hidden.device)
        counts.index_add_(0, sample, hidden.to(torch.int64))
        nought = torch.zeros_like(batch.sample_keys)
        single = below(draw(key, batch.sample_keys, nought, nought + 1)[:, 0], offsets.diff().to(torch.int64))
        hidden |= (counts == 0)[sample] & (position == single[sample])
        rows = (hidden & selected[sample]).nonzero().flatten()
        source[rows] = -1
        return source, rows.to(torch.int32)

    def room(self, capacity: Capacity) -> list[Room]:
        share = self.options.probability[0] / self.options.probability[1]
        most = entries(
            capacity.visual, capacity.visual * share + capacity.samples, capacity.visual * share * (1 - share)
        )
        return [Room(capacity, most)]


class EmotionalRegressionOptions(EmotionalOptions):
    """loss: as of other faces."""

    loss: Literal["mse", "cosine", "l1"] = "mse"


class EmotionalRegression(EmotionalFaces, VisualRegression):
    """The feature rows of emotional faces. Source: MEmoBERT's merfr."""

    Options = EmotionalRegressionOptions


class EmotionalEmotion(EmotionalFaces, VisualEmotion):
    """The soft labels of emotional faces. Source: MEmoBERT's merckl."""

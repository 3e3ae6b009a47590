"""A joint answer beside one from each modality alone, which learns from labels generated for it.

Source: Yu et al., "Learning modality-specific representations with self-supervised multi-task learning", AAAI 2021, as
MMSA 2.2.1 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.bounds import Dropout, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.network import AlignedOptions, Network, Shape
from memofast.model.sequence.recurrent import states
from memofast.model.sequence.rows import Rows
from memofast.model.sequence.unimodal_labels import UnimodalLabels

_NAMES = {"text": "text", "visual": "video", "speech": "audio", "joint": "fusion"}


class SelfMmOptions(AlignedOptions):
    """recurrent_*: width of the LSTM over rows; summary_*: of what is made of its last state; text is its [CLS].
    width_*: of the features of each answer. dropout_*: before them; encoder_dropout: of last states. limit: largest
    label that is generated."""

    kind: Literal["self_mm"]
    recurrent_visual: Width = 32
    recurrent_speech: Width = 16
    summary_visual: Width = 32
    summary_speech: Width = 16
    width_joint: Width = 128
    width_text: Width = 32
    width_visual: Width = 32
    width_speech: Width = 16
    dropout_joint: Dropout = 0.0
    dropout_text: Dropout = 0.1
    dropout_visual: Dropout = 0.0
    dropout_speech: Dropout = 0.1
    encoder_dropout: Dropout = 0.0
    limit: Annotated[float, Field(gt=0, le=1e6)] = 3.0


class SelfMm(Network):
    """An LSTM of faces and one of speech, beside the text's [CLS]; of each a small answer and of all together one."""

    needs = ("text",)
    encodes = True
    state_names = (
        *(
            (rf"{theirs}_model\.{part}\.(.+)", rf"{own_part}.{own}.\1")
            for own, theirs in (("visual", "video"), ("speech", "audio"))
            for part, own_part in (("rnn", "encoders"), ("linear_1", "summaries"))
        ),
        *((rf"post_{theirs}_layer_(\d)\.(.+)", rf"answers.{own}.layer_\1.\2") for own, theirs in _NAMES.items()),
    )

    def __init__(self, options: SelfMmOptions, shape: Shape):
        super().__init__()
        if shape.kind != "regression":
            raise MemofastError("model.network self_mm generates values, of which classes have none; choose another")
        self.options, self.modalities = options, tuple(shape.widths)
        self.losses = {f"{name}_alone": 1.0 for name in self.modalities}
        self.encoders, self.summaries = nn.ModuleDict(), nn.ModuleDict()
        sizes = {"text": shape.text_encoder}
        for name in (one for one in ("speech", "visual") if one in shape.widths):  # the original's order
            recurrent, sizes[name] = getattr(options, f"recurrent_{name}"), getattr(options, f"summary_{name}")
            self.encoders[name] = nn.LSTM(shape.widths[name], recurrent, batch_first=True)
            self.summaries[name] = nn.Linear(recurrent, sizes[name])
        sizes["joint"] = sum(sizes.values())
        self.widths = {name: getattr(options, f"width_{name}") for name in sizes}
        self.answers = nn.ModuleDict({name: Answer(size, self.widths[name]) for name, size in sizes.items()})

    def learning_state(self, keys: Tensor) -> UnimodalLabels:
        return UnimodalLabels(keys, self.widths, self.options.limit)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        if self.options.aligned:
            rows = {name: one.over(rows["text"].lengths) for name, one in rows.items()}
        found = {"text": rows["text"].values[:, 0]}
        for name, encoder in self.encoders.items():
            last = rows[name].last(states(encoder, rows[name]))
            found[name] = self.summaries[name](draws.dropped(last, self.options.encoder_dropout))
        found["joint"] = torch.cat(list(found.values()), 1)
        features = {}
        for name, values in found.items():
            values = draws.dropped(values, getattr(self.options, f"dropout_{name}"))
            features[name] = F.relu(self.answers[name].layer_1(values))
        values = {name: answer(features[name]) for name, answer in self.answers.items()}
        outputs = values.pop("joint")
        if lesson is None:
            return Answers(outputs, modalities=values)
        present = {name: rows[name].lengths > 0 for name in self.modalities}
        return Answers(outputs, self._losses(values, features, present, lesson), values)

    def _losses(
        self,
        values: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        lesson: Lesson,
    ) -> dict[str, Tensor]:
        """Errors of the single modalities' values, weighted by how far their labels are from the sample's own."""
        known, state = lesson.known, lesson.state
        places = state.places(lesson.keys[known])
        there = {name: of[known] for name, of in present.items()}
        state.meet(places, lesson.wanted[known, 0], there)
        losses = {}
        for name, own in values.items():
            label = state.labels(name)[places].where(there[name], 0.0)
            weight = (label - state.labels("joint")[places]).abs().tanh()
            error = weight * (own[known, 0] - label).abs() * there[name]
            losses[f"{name}_alone"] = torch.zeros_like(own[:, 0]).index_put((known,), error.to(own.dtype))
        state.learn(places, {name: of[known] for name, of in features.items()}, there, lesson.epoch)
        return losses


class Answer(nn.Module):
    """A value from features, which are the first layer's."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.layer_1, self.layer_2, self.layer_3 = nn.Linear(size, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.layer_3(F.relu(self.layer_2(features)))

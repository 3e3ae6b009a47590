"""A vector of each modality, any fusion of them, and a linear answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from memofast.data.modality import MODALITIES
from memofast.model.bounds import Dropout
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.fusion.kinds import Options, build
from memofast.model.fusion.side_by_side import ConcatOptions
from memofast.model.sequence.network import Network, Shape
from memofast.model.sequence.rows import Rows
from memofast.model.sequence.vectors import VectorEncoders, VectorOptions


class FusedVectorsOptions(VectorOptions):
    """fusion: `kind` and options, see `fusion.kinds.FUSIONS`. head_dropout: of the fused vector. compat: as of the
    networks whose encoders these are; that of the fusion is its own."""

    kind: Literal["fused_vectors"]
    fusion: Options = ConcatOptions()
    head_dropout: Dropout = 0.1


class FusedVectors(Network):
    """Encoders as of a tensor fusion network, a fusion of their vectors and a linear map of what it gives."""

    def __init__(self, options: FusedVectorsOptions, shape: Shape):
        super().__init__()
        self.encoders = VectorEncoders(options, shape)
        widths = {name: self.encoders.widths[name] for name in MODALITIES if name in shape.widths}
        self.fusion = build(options.fusion, widths)
        self.losses, self.dropout = self.fusion.losses, options.head_dropout
        self.head = nn.Linear(self.fusion.width, shape.outputs)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        vectors = self.encoders(rows, draws)
        present = torch.stack([rows[name].lengths > 0 for name in self.fusion.modalities], 1)
        fused = self.fusion(vectors, present, draws)
        outputs = self.head(draws.dropped(fused.vector, self.dropout))
        return Answers(outputs, {} if lesson is None else fused.losses)

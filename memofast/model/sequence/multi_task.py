"""Vector fusion that also learns what each modality alone says, from labels of single modalities.

Source: MMSA 2.2.1's MLF-DNN, MTFN and MLMF (Yu et al., "CH-SIMS", ACL 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.bounds import Dropout, Width
from memofast.model.draws import Draws
from memofast.model.family import ANSWERS, Answers, Lesson
from memofast.model.sequence.network import Shape
from memofast.model.sequence.rows import Rows
from memofast.model.sequence.vector_fusion import LateFusion, LfDnn, Lmf, LowRankFusion, TensorFusion, Tfn, VectorFusion
from memofast.model.sequence.vectors import Perceptron, VectorOptions, names_of_layers

Weight = Annotated[float, Field(ge=0, le=1e4)]


class HeadOptions(VectorOptions):
    """text_head, visual_head, speech_head: width of the layers that answer by one modality alone; *_head_dropout:
    before them. weight: of the loss of the answers by all modalities; text_weight, visual_weight, speech_weight: of
    those by one."""

    text_head: Width = 16
    visual_head: Width = 32
    speech_head: Width = 4
    text_head_dropout: Dropout = 0.5
    visual_head_dropout: Dropout = 0.5
    speech_head_dropout: Dropout = 0.5
    weight: Weight = 1.0
    text_weight: Weight = 1.0
    visual_weight: Weight = 1.0
    speech_weight: Weight = 1.0


class MlfDnnOptions(HeadOptions, LateFusion):
    """Of `MlfDnn`."""

    kind: Literal["mlf_dnn"] = "mlf_dnn"


class MtfnOptions(HeadOptions, TensorFusion):
    """Of `Mtfn`."""

    kind: Literal["mtfn"] = "mtfn"


class MlmfOptions(HeadOptions, LowRankFusion):
    """Of `Mlmf`."""

    kind: Literal["mlmf"] = "mlmf"


class MultiTask(VectorFusion):
    """Beside what its fusion answers, layers answer by the vector of each modality alone; the absolute errors of those
    are losses of their own."""

    learns_of_modalities = True

    def __init__(self, options: HeadOptions, shape: Shape):
        super().__init__(options, shape)
        if shape.kind != "regression":
            raise MemofastError(
                f"model.network {options.kind} learns values of single modalities; set target.kind=regression"
            )
        self.heads = nn.ModuleDict()
        for name, width in self.encoders.widths.items():
            own, dropout = getattr(options, f"{name}_head"), getattr(options, f"{name}_head_dropout")
            self.heads[name] = Perceptron(width, own, shape.outputs, dropout)
        weights = {name: getattr(options, f"{name}_weight") for name in self.heads}
        self.losses = {ANSWERS: options.weight} | {f"{name}_alone": weight for name, weight in weights.items()}

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        vectors = self.encoders(rows, draws)
        outputs = self.fusion(vectors, draws)
        alone = {name: head(vectors[name], draws) for name, head in self.heads.items()}
        losses = {}
        if lesson is not None:
            losses = {
                f"{name}_alone": _errors(lesson, name, values, rows[name].lengths > 0) for name, values in alone.items()
            }
        return Answers(outputs, losses, alone)


def _errors(lesson: Lesson, modality: str, values: Tensor, present: Tensor) -> Tensor:
    """The lesson's error of each sample [B]; 0 where it is not known what is wanted, or the sample has no rows."""
    wanted = lesson.modalities.get(modality)
    wanted = torch.full_like(values, torch.nan) if wanted is None else wanted
    known = present[:, None] & ~wanted.isnan()
    return lesson.error(values, torch.where(known, wanted, values.detach()), reduction="none").mean(1)


_HEADS = tuple(
    names
    for own, theirs in (("text", "text"), ("visual", "video"), ("speech", "audio"))
    for names in names_of_layers(f"post_{theirs}_layer", f"heads.{own}")
)


class MlfDnn(MultiTask):
    """`LfDnn` with answers by single modalities."""

    fuses = LfDnn.fuses
    state_names = LfDnn.state_names + _HEADS


class Mtfn(MultiTask):
    """`Tfn` with answers by single modalities."""

    fuses = Tfn.fuses
    state_names = Tfn.state_names + _HEADS


class Mlmf(MultiTask):
    """`Lmf` with answers by single modalities."""

    fuses = Lmf.fuses
    state_names = Lmf.state_names + _HEADS

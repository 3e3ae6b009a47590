"""A factor that the modalities share and one of each, from which their rows are generated again.

Source: Tsai et al., "Learning Factorized Multimodal Representations", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from memofast.model.bounds import Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.memory_fusion import (
    LETTERS,
    AttendedMemory,
    HiddenSizes,
    LayerOptions,
    MemoryFusionOptions,
    TwoLayers,
    cell_names,
    names_of,
)
from memofast.model.sequence.network import Shape
from memofast.model.sequence.recurrences import cell_states, lstm
from memofast.model.sequence.rows import Rows
from memofast.sections import Section

Weight = Annotated[float, Field(ge=0, le=1e6)]


class CodeSizes(Section):
    """Of what the modalities share and of each one's own."""

    joint: Width = 80
    text: Width = 64
    visual: Width = 80
    speech: Width = 80


class FactorOptions(Section):
    """Of the factor made of each code."""

    joint: LayerOptions = LayerOptions(width=64, dropout=0.5)
    text: LayerOptions = LayerOptions(width=32, dropout=0.5)
    visual: LayerOptions = LayerOptions(width=64, dropout=0.5)
    speech: LayerOptions = LayerOptions(width=16, dropout=0.7)


class ReconstructionWeights(Section):
    """Of the squared error of each modality's rows."""

    text: Weight = 0.5
    visual: Weight = 0.5
    speech: Weight = 0.01


class FactorisationOptions(MemoryFusionOptions):
    """codes: their sizes. factors: widths and dropout. divergence: weight of the distance of codes from a normal
    distribution; reconstruction: weights of errors of generated rows. Others: as of `MemoryFusionOptions`, of the
    memory whose states give the joint code, and of the head, which reads the joint factor."""

    kind: Literal["mfm"] = "mfm"
    hidden: HiddenSizes = HiddenSizes(text=128, visual=128, speech=32)
    memory: Width = 64
    attention: LayerOptions = LayerOptions(width=32, dropout=0.7)
    retain: LayerOptions = LayerOptions(width=32)
    update: LayerOptions = LayerOptions(width=64, dropout=0.5)
    head: LayerOptions = LayerOptions(width=64)
    codes: CodeSizes = CodeSizes()
    factors: FactorOptions = FactorOptions()
    divergence: Weight = 100.0
    reconstruction: ReconstructionWeights = ReconstructionWeights()


class Factorisation(AttendedMemory):
    """The answer is the joint factor's. Losses: `code_divergence` of all codes, `text_reconstruction` and so on of true
    rows in common steps, of each sample their mean."""

    state_names = (
        *cell_names(r"mfn_encoder\."),
        *names_of([("att1", "attention")], r"mfn_encoder\."),
        *names_of(
            [("att2", "memory.proposal"), ("gamma1", "memory.retain"), ("gamma2", "memory.update")], r"mfn_encoder\."
        ),
        (r"mfn_encoder\.out_.+", ""),  # nothing reads what it gives
        *(
            (rf"{theirs}_{letter}\.{part}\.(.+)", rf"{own}.{name}.\1")
            for name, letter in LETTERS.items()
            for theirs, part, own in (
                ("encoder", "lstm", "encoders"),
                ("encoder", "fc1", "codes"),
                ("decoder", "lstm", "decoders"),
                ("decoder", "fc1", "reconstructions"),
            )
        ),
        (r"last_to_zy_fc1\.(.+)", r"codes.joint.\1"),
        *names_of([(f"z{letter}_to_f{letter}", f"factors.{name}") for name, letter in LETTERS.items()]),
        *names_of([("zy_to_fy", "factors.joint"), ("fy_to_y", "head")]),
    )

    def __init__(self, options: FactorisationOptions, shape: Shape):
        super().__init__(options, shape)
        widths, sizes = shape.widths, options.codes
        factors = {name: getattr(options.factors, name) for name in ("joint", *self.order)}
        codes = {name: getattr(sizes, name) for name in self.order}
        self.encoders = nn.ModuleDict({name: nn.LSTMCell(widths[name], size) for name, size in codes.items()})
        self.codes = nn.ModuleDict({name: nn.Linear(size, size) for name, size in codes.items()})
        self.codes["joint"] = nn.Linear(self.width + options.memory, sizes.joint)
        self.factors = nn.ModuleDict(
            {name: TwoLayers(getattr(sizes, name), factor, factor.width) for name, factor in factors.items()}
        )
        generated = {name: factors["joint"].width + factors[name].width for name in self.order}
        self.decoders = nn.ModuleDict({name: nn.LSTMCell(size, size) for name, size in generated.items()})
        self.reconstructions = nn.ModuleDict({name: nn.Linear(size, widths[name]) for name, size in generated.items()})
        self.head = TwoLayers(factors["joint"].width, options.head, shape.outputs)
        self.losses = {"code_divergence": options.divergence} | {
            f"{name}_reconstruction": getattr(options.reconstruction, name) for name in self.order
        }

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        rows, given = self.steps(rows), rows
        joint = self.codes["joint"](self.fused(rows, draws))
        factor = F.relu(self.factors["joint"](joint, draws))
        answers = Answers(self.head(factor, draws))
        if lesson is None:
            return answers
        divergence = divergence_of(joint, draws.normal(joint.shape[1]))
        for name in self.order:
            code, there = self.codes[name](self._encoded(name, rows[name])), given[name].lengths > 0
            divergence = divergence + divergence_of(code[there], draws.normal(code.shape[1])[there])
            both = torch.cat([factor, F.relu(self.factors[name](code, draws))], 1)
            answers.losses[f"{name}_reconstruction"] = self._error(name, both, rows[name]) * there
        answers.losses["code_divergence"] = divergence
        return answers

    def _encoded(self, name: str, rows: Rows) -> Tensor:
        hidden, _ = cell_states(self.encoders[name], rows.values.transpose(0, 1))
        return rows.last(hidden.transpose(0, 1))

    def generated(self, name: str, factor: Tensor, steps: int) -> Tensor:
        """Rows [B, steps, D] of a modality. factor [B, C]: the joint and its own. An LSTM that reads its own states has
        one recurrent weight, the sum of both."""
        cell = self.decoders[name]
        bias = cell.bias_ih + cell.bias_hh
        first = F.linear(factor, cell.weight_ih, bias)[None]
        gates = torch.cat([first, bias.expand(steps - 1, len(factor), -1)])
        hidden, _ = lstm(gates, cell.weight_ih + cell.weight_hh)
        return self.reconstructions[name](hidden).transpose(0, 1)

    def _error(self, name: str, factor: Tensor, rows: Rows) -> Tensor:
        """Mean squared error of each sample's true rows [B]; 0 where it has none."""
        error = (self.generated(name, factor, rows.values.shape[1]) - rows.values).square().mean(2)
        return (error * rows.inside).sum(1) / rows.lengths.clamp(min=1)


def divergence_of(codes: Tensor, drawn: Tensor) -> Tensor:
    """Maximum mean discrepancy of codes [n, C] and numbers of a normal distribution [n, C], with a Gaussian kernel; 0
    for none."""
    if not len(codes):
        return codes.sum()
    return _similarity(drawn, drawn) + _similarity(codes, codes) - 2 * _similarity(drawn, codes)


def _similarity(ours: Tensor, others: Tensor) -> Tensor:
    distances = (ours[:, None] - others[None]).square().mean(2)
    return (-distances / ours.shape[1]).exp().mean()

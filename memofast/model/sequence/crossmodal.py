"""Encoders in which the rows of a modality attend to those of another, each modality with all others.

Source: Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.attending_layers import Encoder, LayerOptions
from memofast.model.sequence.network import Network, NetworkOptions, Shape
from memofast.model.sequence.packed_rows import PackedRows
from memofast.model.sequence.rows import Rows
from memofast.sections import Section

_ORDER = ("text", "speech", "visual")  # of states that are joined, as the original has them
_LETTERS = {"text": "l", "speech": "a", "visual": "v"}  # of the original's names
_LEAST_MEMORY_LAYERS = 3

Kernel = Annotated[int, Field(ge=1, le=1000)]


class Kernels(Section):
    """Rows that a convolution of each modality reads at once."""

    text: Kernel = 5
    visual: Kernel = 5
    speech: Kernel = 5


class AttentionDropout(Section):
    """Of attention to each modality; that of joined rows to themselves is text's."""

    text: Dropout = 0.3
    visual: Dropout = 0.0
    speech: Dropout = 0.2


class CrossmodalOptions(NetworkOptions):
    """width, heads, layers: of each encoder; those of what was joined have at least 3 layers and twice the width.
    kernels: of the convolutions that bring rows to the width. causal: row i of n attends to no row of m after
    i + |n - m|. text_dropout: of the text's rows; embedding_dropout: of what goes into an encoder; attention_dropout,
    inner_dropout, residual_dropout: inside; head_dropout: before the answer."""

    kind: Literal["mult"] = "mult"
    width: Width = 50
    heads: Layers = 10
    layers: Layers = 4
    kernels: Kernels = Kernels()
    causal: bool = True
    text_dropout: Dropout = 0.5
    embedding_dropout: Dropout = 0.2
    attention_dropout: AttentionDropout = AttentionDropout()
    inner_dropout: Dropout = 0.0
    residual_dropout: Dropout = 0.0
    head_dropout: Dropout = 0.5

    @model_validator(mode="after")
    def _whole_heads(self) -> CrossmodalOptions:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


def _layers(options: CrossmodalOptions, width: int, attention_dropout: float) -> LayerOptions:
    dropout = (attention_dropout, options.embedding_dropout, options.inner_dropout, options.residual_dropout)
    return LayerOptions(width, options.heads, *dropout, causal=options.causal)


class Crossmodal(Network):
    """Of each modality, rows that attended to every other's, joined; the last of them after an encoder of their own.

    A convolution reads true rows; of a sample that has fewer than its kernel, zeros after them. compat: padding is read
    as rows.
    """

    state_names = (
        *((rf"proj_{letter}\.(.+)", rf"projections.{name}.\1") for name, letter in _LETTERS.items()),
        (r"trans_.+\.version", ""),
        *(
            (rf"trans_{place}\.{theirs}", rf"{own_place}.{own}")
            for place, own_place in [
                *(
                    (f"{_LETTERS[name]}_with_{_LETTERS[other]}", f"crossing.{name}_{other}")
                    for name in _ORDER
                    for other in _ORDER
                    if other != name
                ),
                *((f"{letter}_mem", f"memories.{name}") for name, letter in _LETTERS.items()),
            ]
            for theirs, own in (
                (r"layers\.(\d+)\.self_attn\.in_proj_(.+)", r"layers.\1.qkv.\2"),
                (r"layers\.(\d+)\.self_attn\.out_proj\.(.+)", r"layers.\1.attended.\2"),
                (r"layers\.(\d+)\.fc1\.(.+)", r"layers.\1.inner.\2"),
                (r"layers\.(\d+)\.fc2\.(.+)", r"layers.\1.outer.\2"),
                (r"layers\.(\d+)\.layer_norms\.(.+)", r"layers.\1.norms.\2"),
                (r"layer_norm\.(.+)", r"norm.\1"),
            )
        ),
        (r"proj1\.(.+)", r"inner.\1"),
        (r"proj2\.(.+)", r"outer.\1"),
        (r"out_layer\.(.+)", r"head.\1"),
    )

    def __init__(self, options: CrossmodalOptions, shape: Shape):
        super().__init__()
        self.options, width = options, options.width
        self.order = tuple(name for name in _ORDER if name in shape.widths)
        kernels = {name: getattr(options.kernels, name) for name in self.order}
        dropout = {name: getattr(options.attention_dropout, name) for name in _ORDER}
        self.projections = nn.ModuleDict(  # rows of the width are read as they are, as the original does
            {
                name: nn.Conv1d(shape.widths[name], width, kernels[name], bias=False)
                for name in self.order
                if shape.widths[name] != width
            }
        )
        self.crossing = nn.ModuleDict(
            {
                f"{name}_{other}": Encoder(_layers(options, width, dropout[other]), options.layers)
                for name in self.order
                for other in self.order
                if other != name
            }
        )
        joined, layers = max(1, len(self.order) - 1) * width, max(options.layers, _LEAST_MEMORY_LAYERS)
        memory = _layers(options, joined, dropout["text"])
        self.memories = nn.ModuleDict({name: Encoder(memory, layers) for name in self.order})
        self.inner = nn.Linear(len(self.order) * joined, len(self.order) * joined)
        self.outer = nn.Linear(len(self.order) * joined, len(self.order) * joined)
        self.head = nn.Linear(len(self.order) * joined, shape.outputs)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        last = self.read(rows, draws)
        inner = draws.dropped(F.relu(self.inner(last)), self.options.head_dropout)
        return Answers(self.head(self.outer(inner) + last))

    def read(self, rows: Mapping[str, Rows], draws: Draws) -> Tensor:
        """What is read of all modalities [B, C]; 0 for one that a sample lacks."""
        rows = {name: one.whole() for name, one in rows.items()} if self.options.compat else rows
        packed = {name: PackedRows.of(self._projected(name, rows[name], draws)) for name in self.order}
        return torch.cat([self._joined(name, packed, draws) for name in self.order], 1)

    def _projected(self, name: str, rows: Rows, draws: Draws) -> Rows:
        values = draws.dropped(rows.values, self.options.text_dropout) if name == "text" else rows.values
        if name not in self.projections:
            return Rows(values, rows.lengths)
        convolution = self.projections[name]
        (kernel,) = convolution.kernel_size
        values = F.pad(values, (0, 0, 0, max(0, kernel - values.shape[1])))
        lengths = (rows.lengths - kernel + 1).clamp(min=1) * (rows.lengths > 0)
        products = F.linear(values, convolution.weight.permute(2, 0, 1).flatten(0, 1)).unflatten(2, (kernel, -1))
        steps = values.shape[1] - kernel + 1
        return Rows(sum(products[:, row : row + steps, row] for row in range(kernel)), lengths)

    def _joined(self, name: str, packed: Mapping[str, PackedRows], draws: Draws) -> Tensor:
        own = packed[name]
        crossed = [self.crossing[f"{name}_{other}"](own, draws, packed[other]) for other in self.order if other != name]
        values = torch.cat([one.values for one in crossed], 1) if crossed else own.values
        return self.memories[name].last(own.with_values(values), draws)

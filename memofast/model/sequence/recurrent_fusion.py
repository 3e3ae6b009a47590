"""An encoder of each modality's rows, their states joined step by step, and an LSTM over what is joined.

Source: the CMU-MOSI laboratory's model and the variants that it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from memofast import ops
from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.memobert.embeddings import sinusoid_table
from memofast.model.sequence.network import Network, NetworkOptions, Shape
from memofast.model.sequence.recurrent import states
from memofast.model.sequence.rows import Rows, aligned

_LETTERS = {"text": "text", "visual": "vision", "speech": "audio"}


class RecurrentFusionOptions(NetworkOptions):
    """width: of every layer. encoder: `lstm`, or `transformer` with positions, of `layers` layers of `heads` heads with
    dropout. layer_norm: of the rows, before anything else. fusion: `sum` of the modalities' states, or by `attention`
    over them in every step. bound: values lie between -bound and bound, by a sigmoid; None: anywhere."""

    kind: Literal["recurrent_fusion"] = "recurrent_fusion"
    width: Width = 128
    encoder: Literal["lstm", "transformer"] = "lstm"
    layers: Layers = 1
    heads: Layers = 4
    dropout: Dropout = 0.1
    layer_norm: bool = True
    fusion: Literal["sum", "attention"] = "sum"
    bound: float | None = 3.0

    @model_validator(mode="after")
    def _go_together(self) -> RecurrentFusionOptions:
        if self.encoder == "transformer" and self.width % (8 * self.heads):
            raise ValueError(f"width {self.width} is no multiple of 8 for each of heads {self.heads}")
        if self.compat and (self.encoder, self.fusion) != ("lstm", "sum"):
            raise ValueError("compat repeats the laboratory's model, an LSTM and a sum; leave encoder and fusion out")
        return self


class RecurrentFusion(Network):
    """y = W LSTM(sum over modalities of encoder(relu(W_m LN(x_m)))), read at each sample's last step.

    compat: padding is read as rows, as which it becomes LayerNorm's bias.
    """

    state_names = (
        (r"mm_lstm\.(.+)", r"joint.\1"),
        (r"fc\.(.+)", r"head.\1"),
        *(
            (rf"{theirs}_{part}\.(.+)", rf"{own_part}.{own}.\1")
            for own, theirs in _LETTERS.items()
            for part, own_part in (("norm", "norms"), ("fc", "projections"), ("lstm", "encoders"))
        ),
    )

    def __init__(self, options: RecurrentFusionOptions, shape: Shape):
        super().__init__()
        self.options, width = options, options.width
        self.bound = options.bound if shape.kind == "regression" else None
        if options.layer_norm:
            self.norms = nn.ModuleDict({name: nn.LayerNorm(rows) for name, rows in shape.widths.items()})
        self.projections = nn.ModuleDict({name: nn.Linear(rows, width) for name, rows in shape.widths.items()})
        self.encoders = nn.ModuleDict({name: _encoder(options) for name in shape.widths})
        if options.fusion == "attention":
            self.scores = nn.Linear(width, 1)
        self.joint = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, shape.outputs)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        rows = {name: one.whole() for name, one in rows.items()} if self.options.compat else rows
        encoded = aligned({name: self._encoded(name, one, draws) for name, one in rows.items()})
        joined = self._joined(encoded, {name: one.lengths > 0 for name, one in rows.items()})
        values = self.head(joined.last(states(self.joint, joined)))
        if self.bound is not None:
            values = 2 * self.bound * values.sigmoid() - self.bound
        return Answers(values)

    def _encoded(self, name: str, rows: Rows, draws: Draws) -> Rows:
        values = self.norms[name](rows.values) if self.options.layer_norm else rows.values
        values, encoder = F.relu(self.projections[name](values)), self.encoders[name]
        projected = Rows(values, rows.lengths)
        if isinstance(encoder, nn.LSTM):
            return projected.with_values(states(encoder, projected))
        return encoder(projected.with_values(values), draws)

    def _joined(self, encoded: Mapping[str, Rows], present: Mapping[str, Tensor]) -> Rows:
        """Rows of common steps, those of absent modalities are 0."""
        first = next(iter(encoded.values()))
        if self.options.fusion == "sum":
            return first.with_values(sum(one.values for one in encoded.values()))
        every = torch.stack([one.values for one in encoded.values()], 2)  # [B, L, M, C]
        scores = self.scores(every)[..., 0]
        absent = torch.stack([~there for there in present.values()], 1)[:, None]
        weights = scores.masked_fill(absent & ~absent.all(2, keepdim=True), -torch.inf).softmax(2)
        return first.with_values((weights[..., None] * every).sum(2))


class TransformerEncoder(nn.Module):
    """Post-norm layers over rows with the positions of sines; a row sees all rows of its sample."""

    def __init__(self, options: RecurrentFusionOptions):
        super().__init__()
        width = options.width
        self.heads, self.dropout = options.heads, options.dropout
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(options.layers))
        self.attention_output = nn.ModuleList(nn.Linear(width, width) for _ in range(options.layers))
        self.intermediate = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(options.layers))
        self.output = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(options.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * options.layers))

    def forward(self, rows: Rows, draws: Draws) -> Rows:
        values = rows.values
        positions = sinusoid_table(values.shape[1], values.shape[2]).to(values)
        hidden = draws.dropped(values + positions, self.dropout)
        inside, offsets = rows.inside, F.pad(rows.lengths.cumsum(0), (1, 0)).to(torch.int32)
        for layer, norm in enumerate(zip(self.norms[::2], self.norms[1::2], strict=True)):
            qkv = self.qkv[layer](hidden[inside]).view(-1, 3, self.heads, values.shape[2] // self.heads)
            context = ops.attention(qkv, offsets, longest=values.shape[1]).flatten(1)
            attended = torch.zeros_like(hidden).masked_scatter(inside[..., None], self.attention_output[layer](context))
            hidden = norm[0](hidden + draws.dropped(attended, self.dropout))
            inner = self.output[layer](F.gelu(self.intermediate[layer](hidden)))
            hidden = norm[1](hidden + draws.dropped(inner, self.dropout))
        return rows.with_values(hidden)


def _encoder(options: RecurrentFusionOptions) -> nn.Module:
    if options.encoder == "transformer":
        return TransformerEncoder(options)
    return nn.LSTM(options.width, options.width, batch_first=True)

"""A gate that shifts a BERT's embeddings of word pieces by the faces and the speech of the same steps.

Source: Rahman et al., "Integrating multimodal information in large pretrained transformers" (MAG-BERT), ACL 2020, as
MMSA 2.2.1 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from memofast.model.bounds import Dropout
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.fusion.gates import gated_shift, shifted
from memofast.model.sequence.network import Network, NetworkOptions, Shape
from memofast.model.sequence.rows import Rows, aligned

_INITIAL = 0.02  # standard deviation of weights, as of the BERT that they work in


class MagOptions(NetworkOptions):
    """beta: largest length of a shift, as a share of the embedding's own; at most 1 of the shift is taken. dropout: of
    shifted embeddings; head_dropout: before the answer."""

    kind: Literal["mag"]
    beta: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    dropout: Dropout = 0.3
    head_dropout: Dropout = 0.1


class Mag(Network):
    """LN(x + alpha h) in place of an embedding x: h sums relu(W [m; x]) * V m over the rows m of other modalities, and
    alpha is min(1, beta |x| / |h|). A linear map of the encoder's pooled [CLS] answers.

    Rows of faces or speech that are not one a word piece are averaged to the word pieces' steps.

    compat: rows are taken for those of the word pieces, one by one, and a sample without any shifts by the biases.
    """

    needs = ("text",)
    encodes = pooled = adapts = True
    state_names = (
        *(
            (rf"mag\.{part}{letter}\.(.+)", rf"{own}.{name}.\1")
            for name, letter in (("visual", "v"), ("speech", "a"))
            for part, own in (("W_h", "gates"), ("W_", "shifts"))
        ),
        (r"mag\.LayerNorm\.(.+)", r"norm.\1"),
        (r"classifier\.(.+)", r"head.\1"),
    )

    def __init__(self, options: MagOptions, shape: Shape):
        super().__init__()
        self.options, width = options, shape.text_encoder
        sizes = {name: size for name, size in shape.widths.items() if name != "text"}
        self.gates = nn.ModuleDict({name: nn.Linear(size + width, width) for name, size in sizes.items()})
        self.shifts = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, shape.outputs)
        for linear in (*self.gates.values(), *self.shifts.values(), self.head):
            nn.init.normal_(linear.weight, std=_INITIAL)
            nn.init.zeros_(linear.bias)

    def adapted(self, words: Rows, rows: Mapping[str, Rows], draws: Draws) -> Rows:
        x, shift = words.values, torch.zeros_like(words.values)
        for name, values in self._in_steps(words, rows).items():
            there = 1 if self.options.compat else (rows[name].lengths > 0)[:, None, None]
            shift = shift + gated_shift(self.gates[name], self.shifts[name], values, x) * there
        return words.with_values(draws.dropped(self.norm(shifted(x, shift, self.options.beta)), self.options.dropout))

    def _in_steps(self, words: Rows, rows: Mapping[str, Rows]) -> dict[str, Tensor]:
        """Rows [B, L, D] of the other modalities in the word pieces' steps."""
        length = words.values.shape[1]
        if not self.options.compat:
            rows = aligned({"text": words, **{name: rows[name] for name in self.gates}})
        return {name: F.pad(rows[name].values, (0, 0, 0, length - rows[name].values.shape[1])) for name in self.gates}

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        return Answers(self.head(draws.dropped(rows["text"].values[:, 0], self.options.head_dropout)))

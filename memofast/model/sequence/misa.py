"""Modality-invariant and modality-specific representations of text, faces and speech, drawn together and apart.

Source: Hazarika et al., "MISA", ACM MM 2020, as MMSA 2.2.1 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.fusion.attention import attend
from memofast.model.sequence.network import Network, NetworkOptions, Shape
from memofast.model.sequence.recurrent import both_ends
from memofast.model.sequence.rows import Rows

Weight = Annotated[float, Field(ge=0, le=1e6)]
_MOMENTS = 5  # that similarity compares
_LETTERS = {"text": "t", "visual": "v", "speech": "a"}
_LAYER = r"transformer_encoder\.layers\.0\."


class MisaOptions(NetworkOptions):
    """width: of every representation. heads, feed_forward, fusion_dropout: of the layer of attention over them.
    dropout: before the answer. similarity, difference, reconstruction: weights of the losses."""

    kind: Literal["misa"]
    width: Width = 128
    heads: Layers = 2
    feed_forward: Width = 2048
    dropout: Dropout = 0.2
    fusion_dropout: Dropout = 0.1
    similarity: Weight = 0.3
    difference: Weight = 0.1
    reconstruction: Weight = 1.0


class Misa(Network):
    """Of each modality a summary h, p = sigmoid(W_p h) its own and c = sigmoid(W h) by a map that all share; attention
    over all p and c, whose concatenation gives the answer.

    compat: rows of faces and speech are read over the length of the text.
    """

    needs = ("text",)
    encodes = True
    state_names = (
        (r"(tlayer_norm|sp_discriminator)\..+", ""),  # which nothing reads
        *(
            (theirs.format(letter), rf"{own}.{name}.\1")
            for name, letter in _LETTERS.items()
            for theirs, own in (
                (r"project_{0}\.project_{0}\.(.+)", "projections"),
                (r"project_{0}\.project_{0}_layer_norm\.(.+)", "norms"),
                (r"private_{0}\.private_{0}_\d\.(.+)", "private"),
                (r"recon_{0}\.recon_{0}_1\.(.+)", "reconstructions"),
            )
        ),
        *(
            (theirs.format(letter), rf"encoders.{name}.{own}.\1")
            for name, letter in (("visual", "v"), ("speech", "a"))
            for theirs, own in (
                (r"{}rnn1\.(.+)", "first"),
                (r"{}rnn2\.(.+)", "second"),
                (r"{}layer_norm\.(.+)", "norm"),
            )
        ),
        (r"shared\.shared_1\.(.+)", r"shared.\1"),
        (r"fusion\.fusion_layer_1\.(.+)", r"join.\1"),
        (r"fusion\.fusion_layer_3\.(.+)", r"head.\1"),
        (_LAYER + r"self_attn\.in_proj_(.+)", r"mixing.qkv.\1"),
        (_LAYER + r"self_attn\.out_proj\.(.+)", r"mixing.attention_output.\1"),
        (_LAYER + r"linear1\.(.+)", r"mixing.intermediate.\1"),
        (_LAYER + r"linear2\.(.+)", r"mixing.output.\1"),
        (_LAYER + r"norm1\.(.+)", r"mixing.attention_norm.\1"),
        (_LAYER + r"norm2\.(.+)", r"mixing.output_norm.\1"),
    )

    def __init__(self, options: MisaOptions, shape: Shape):
        super().__init__()
        self.options, width = options, options.width
        self.losses = {name: getattr(options, name) for name in ("similarity", "difference", "reconstruction")}
        names = list(shape.widths)
        self.encoders = nn.ModuleDict({name: TwoLayers(shape.widths[name]) for name in names if name != "text"})
        sizes = {name: size if name == "text" else 4 * size for name, size in shape.widths.items()}
        self.projections = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in names})
        self.private = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.shared = nn.Linear(width, width)
        self.reconstructions = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.mixing = AttentionLayer(options)
        self.join = nn.Linear(2 * len(names) * width, len(names) * width)
        self.head = nn.Linear(len(names) * width, shape.outputs)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        if self.options.compat:
            rows = {name: one.over(rows["text"].lengths) for name, one in rows.items()}
        whole = {name: self._summary(name, one) for name, one in rows.items()}
        own = {name: self.private[name](values).sigmoid() for name, values in whole.items()}
        common = {name: self.shared(values).sigmoid() for name, values in whole.items()}
        mixed = self.mixing(torch.stack([*own.values(), *common.values()], 1), draws).flatten(1)
        outputs = self.head(F.relu(draws.dropped(self.join(mixed), self.options.dropout)))
        if lesson is None:
            return Answers(outputs)
        present = {name: one.lengths > 0 for name, one in rows.items()}
        return Answers(outputs, self._losses(whole, own, common, present))

    def _summary(self, name: str, rows: Rows) -> Tensor:
        values = rows.mean() if name == "text" else self.encoders[name](rows)
        return self.norms[name](F.relu(self.projections[name](values)))

    def _losses(
        self,
        whole: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        common: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Of the modalities that samples have."""
        nothing, similar, apart = next(iter(whole.values())).new_zeros(()), [], []
        for name, there in present.items():
            apart.append(difference(own[name][there], common[name][there]))
        for one, other in combinations(present, 2):
            both = present[one] & present[other]
            similar.append(moment_discrepancy(common[one][both], common[other][both], _MOMENTS))
            apart.append(difference(own[one][both], own[other][both]))
        again = [
            (self.reconstructions[name](own[name] + common[name]) - values).square().mean(1) * present[name]
            for name, values in whole.items()
        ]
        return {
            "similarity": sum(similar, nothing) / max(len(similar), 1),
            "difference": sum(apart, nothing),
            "reconstruction": sum(again) / len(again),
        }


class TwoLayers(nn.Module):
    """Two bidirectional LSTMs over rows [B, L, D] with LayerNorm between; the last states [B, 4 D] of both."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.second = nn.LSTM(2 * width, width, batch_first=True, bidirectional=True)

    def forward(self, rows: Rows) -> Tensor:
        states, first = both_ends(self.first, rows)
        _, second = both_ends(self.second, rows.with_values(self.norm(states)))
        return torch.cat((first, second), 2).transpose(0, 1).flatten(1)


class AttentionLayer(nn.Module):
    """A post-norm layer with ReLU over the representations [B, R, C] of each sample."""

    def __init__(self, options: MisaOptions):
        super().__init__()
        width, self.heads, self.dropout = options.width, options.heads, options.fusion_dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.intermediate = nn.Linear(width, options.feed_forward)
        self.output = nn.Linear(options.feed_forward, width)
        self.output_norm = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.qkv.weight)
        for bias in (self.qkv.bias, self.attention_output.bias):
            nn.init.zeros_(bias)

    def forward(self, values: Tensor, draws: Draws) -> Tensor:
        context = attend(*self.qkv(values).chunk(3, 2), self.heads, self.dropout, draws)
        values = self.attention_norm(values + draws.dropped(self.attention_output(context), self.dropout))
        inner = draws.dropped(F.relu(self.intermediate(values)), self.dropout)
        return self.output_norm(values + draws.dropped(self.output(inner), self.dropout))


def moment_discrepancy(one: Tensor, other: Tensor, moments: int) -> Tensor:
    """Central moment discrepancy of representations [B, C] and [B, C]: the distances of their means and of their
    central moments up to `moments`; 0 without samples. Source: Zellinger et al., ICLR 2017."""
    if not len(one):
        return one.sum()
    means = one.mean(0), other.mean(0)
    centred = one - means[0], other - means[1]
    found = torch.linalg.vector_norm(means[0] - means[1])  # whose gradient is 0 where they are one
    for power in range(2, moments + 1):
        apart = (centred[0] ** power).mean(0) - (centred[1] ** power).mean(0)
        found = found + torch.linalg.vector_norm(apart)
    return found


def difference(one: Tensor, other: Tensor) -> Tensor:
    """How far two representations [B, C] of the same samples are from orthogonal: mean square of X^T Y, of which both
    are centred over the samples and each row is then of length 1; 0 without samples."""
    if not len(one):
        return one.sum()
    x, y = (values - values.mean(0) for values in (one, other))
    x, y = (values / (values.norm(dim=1, keepdim=True).detach() + 1e-6) for values in (x, y))
    return (x.T @ y).square().mean()

"""How the vectors of the towers are joined: side by side. A further way is a kind of `Options`, and what `build` makes
of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from memofast.model.sequence.draws import Draws
from memofast.sections import Section

_INITIAL = 0.02  # standard deviation of placeholders


class ConcatOptions(Section):
    """The vectors side by side, text, visual, speech."""

    kind: Literal["concat"] = "concat"


Options = ConcatOptions  # a union by `kind`, once there are several


@dataclass(frozen=True)
class Fused:
    """vector [B, width]. losses: by name in the fusion's `losses`, of each sample [B] or a scalar."""

    vector: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class Concat(nn.Module):
    """Args: widths: of each modality's vector, in the order in which they are joined. width: of what comes out. losses:
    weight of each loss that it is learnt by, by name."""

    def __init__(self, options: ConcatOptions, widths: Mapping[str, int]):
        super().__init__()
        self.width, self.losses, self.modalities = sum(widths.values()), {}, tuple(widths)
        self.placeholders = nn.ParameterDict()
        for name, width in widths.items():
            self.placeholders[name] = nn.Parameter(nn.init.normal_(torch.empty(1, width), std=_INITIAL))

    def forward(self, vectors: Mapping[str, Tensor], present: Tensor, draws: Draws) -> Fused:
        """Args: vectors [B, width] by modality, of any values where it is missing. present [B, modalities] bool. draws:
        for dropout, which is none here."""
        filled = [
            torch.where(present[:, place, None], vectors[name], self.placeholders[name])
            for place, name in enumerate(self.modalities)
        ]
        return Fused(torch.cat(filled, 1))


def build(options: Options, widths: Mapping[str, int]) -> Concat:
    """A fusion with random weights. widths: of the vectors by modality."""
    return Concat(options, widths)

"""One modality's vector, shifted by a gated sum of what the others say, by a share of its own length at most.

Source: Rahman et al., "Integrating multimodal information in large pretrained transformers" (MAG-BERT), ACL 2020; Yun
et al., "TelME: teacher-leading multimodal fusion network for emotion recognition in conversation", NAACL 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from memofast.data.modality import MODALITIES
from memofast.model.bounds import Dropout, Layers
from memofast.model.draws import Draws
from memofast.model.fusion.attention import AttendingTokens, AttentionOverBatch
from memofast.model.fusion.fusion import Fused, Fusion, FusionOptions, side_by_side
from memofast.model.fusion.layers import CommonWidth

_SMALLEST = 1e-6  # beside the length of a shift


def gated_shift(gate: nn.Linear, shift: nn.Linear, values: Tensor, x: Tensor) -> Tensor:
    """relu(W [m; x]) * V m of values m [..., D] and x [..., C]: [..., C]."""
    return F.relu(gate(torch.cat((values, x), -1))) * shift(values)


def shifted(x: Tensor, shift: Tensor, beta: float) -> Tensor:
    """x + min(1, beta |x| / |shift|) shift, of vectors [..., C]."""
    length = shift.norm(dim=-1, keepdim=True)
    return x + (x.norm(dim=-1, keepdim=True) / (length + _SMALLEST) * beta).clamp(max=1.0) * shift


class GuidedOptions(FusionOptions):
    """main: the modality that the others are read for."""

    main: Literal[MODALITIES] = "text"


class AdaptationGateOptions(GuidedOptions):
    """Of `AdaptationGate`. beta: largest length of a shift, as a share of the vector's own; at most 1 of the shift is
    taken. dropout: of the fused vector."""

    kind: Literal["adaptation_gate"]
    beta: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    dropout: Dropout = 0.3


class ModalityShiftingOptions(GuidedOptions):
    """Of `ModalityShifting`. heads: of the attention between the other modalities. beta: as of `adaptation_gate`.
    dropout: of what they say and of the fused vector. compat: attention is over the samples of the batch."""

    kind: Literal["modality_shifting"]
    compat: bool = False
    heads: Layers = 4
    beta: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    dropout: Dropout = 0.2


class AdaptationGate(Fusion):
    """LN(x + alpha h) of the main modality's x: h sums relu(W [m; x]) * V m over the other modalities m, and alpha is
    min(1, beta |x| / |h|)."""

    least = 2

    def __init__(self, options: AdaptationGateOptions, widths: Mapping[str, int]):
        super().__init__(widths)
        self.options, self.width = options, widths[options.main]
        others = {name: own for name, own in widths.items() if name != options.main}
        self.gates = nn.ModuleDict({name: nn.Linear(own + self.width, self.width) for name, own in others.items()})
        self.shifts = nn.ModuleDict({name: nn.Linear(own, self.width) for name, own in others.items()})
        self.norm = nn.LayerNorm(self.width)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        x = vectors[self.options.main]
        shift = sum(gated_shift(self.gates[name], self.shifts[name], vectors[name], x) for name in self.gates)
        return Fused(draws.dropped(self.norm(shifted(x, shift, self.options.beta)), self.options.dropout))


class ModalityShifting(Fusion):
    """LN(x + alpha h) of the main modality's x: h = relu(W [m; x]) * V m, of the others' m side by side after attention
    between them, with alpha as in `AdaptationGate`."""

    least = 2

    def __init__(self, options: ModalityShiftingOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat)
        self.options, self.width = options, widths[options.main]
        others = {name: own for name, own in self.widths.items() if name != options.main}
        if options.compat:
            size = sum(others.values())
            self.attention, self.others_norm = AttentionOverBatch(size, size, options.heads), nn.LayerNorm(size)
        else:
            self.common = CommonWidth(others, self.width)
            self.attending = AttendingTokens(self.common.width, options.heads, options.dropout)
            size = len(others) * self.common.width
        self.gate, self.shift = nn.Linear(size + self.width, self.width), nn.Linear(size, self.width)
        self.norm = nn.LayerNorm(self.width)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        x, dropout = vectors[self.options.main], self.options.dropout
        others = {name: one for name, one in vectors.items() if name != self.options.main}
        said = draws.dropped(self._read(others, draws), dropout)
        shift = gated_shift(self.gate, self.shift, said, x)
        return Fused(draws.dropped(self.norm(shifted(x, shift, self.options.beta)), dropout))

    def _read(self, others: Mapping[str, Tensor], draws: Draws) -> Tensor:
        if self.options.compat:
            joined = side_by_side(others)
            return self.others_norm(joined + self.attention(joined, joined, draws))
        return self.attending(torch.stack(list(self.common(others).values()), 1), draws).flatten(1)

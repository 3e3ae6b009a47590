"""Linear layers that several fusions are made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from memofast.model.draws import Draws


class GeluLayers(nn.Module):
    """`depth` linear layers, with dropout and GELU between them."""

    def __init__(self, inputs: int, outputs: int, depth: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(nn.Linear(inputs if place == 0 else outputs, outputs) for place in range(depth))

    def forward(self, values: Tensor, draws: Draws) -> Tensor:
        """Args: values [B, inputs]. Returns: [B, outputs]."""
        first, *others = self.layers
        values = first(values)
        for layer in others:
            values = layer(F.gelu(draws.dropped(values, self.dropout)))
        return values


class CommonWidth(nn.Module):
    """Vectors of all modalities in one width: linear maps of them, or where they are of one width already, and it need
    not be another, they themselves.

    width: which it is.
    """

    def __init__(self, widths: Mapping[str, int], width: int, *, always: bool = False):
        """Args: always: map them, of whatever width they are."""
        super().__init__()
        unequal = len(set(widths.values())) > 1
        self.width = width if always or unequal else next(iter(widths.values()))
        self.maps = nn.ModuleDict()
        if always or unequal:
            self.maps.update({name: nn.Linear(own, width) for name, own in widths.items()})

    def forward(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """[B, width] by modality."""
        return {name: self.maps[name](one) if self.maps else one for name, one in vectors.items()}

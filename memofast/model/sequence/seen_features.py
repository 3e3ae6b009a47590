"""Features of training samples as they were last seen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class SeenFeatures(nn.Module):
    """Features of every training sample by name, its value, and the update in which it was last seen, 0 for none.

    keys [n] int64: of the samples, ascending. widths: of the features, by name.
    """

    def __init__(self, keys: Tensor, widths: Mapping[str, int]):
        super().__init__()
        self.register_buffer("keys", keys.clone())
        self.register_buffer("value", torch.zeros(len(keys)))
        for name, width in widths.items():
            self.register_buffer(f"{name}_features", torch.zeros(len(keys), width))
            self.register_buffer(f"{name}_update", torch.zeros(len(keys), dtype=torch.int64))

    def places(self, keys: Tensor) -> Tensor:
        """Where samples [B] int64 of these keys are among all."""
        return torch.searchsorted(self.keys, keys)

    def since(self, name: str, update: int, memory: int, but: Tensor) -> tuple[Tensor, Tensor]:
        """Features [m, C] and values [m] of samples seen in the `memory` updates before this one, but not at places
        `but` [B] int64."""
        last = self.get_buffer(f"{name}_update")
        recent = (last > 0) & (last >= update - memory) & (last < update)
        recent[but] = False
        return self.get_buffer(f"{name}_features")[recent], self.value[recent]

    @torch.no_grad()
    def learn(self, places: Tensor, value: Tensor, features: Mapping[str, tuple[Tensor, Tensor]], update: int) -> None:
        """Takes samples [B] at their places. features: by name [B, C], and which samples [B] bool have them."""
        self.value[places] = value.to(self.value.dtype)
        for name, (own, there) in features.items():
            self.get_buffer(f"{name}_features")[places[there]] = own[there].detach()
            self.get_buffer(f"{name}_update")[places[there]] = update

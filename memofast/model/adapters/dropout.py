"""Dropout of what adapters read, from the numbers that everything random is made of, so that a resumed run repeats."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memofast.ops.philox import (
    Place,
    drop_threshold,
    hidden_keep_mask,
    keep_factors,
    keep_scale,
    rows_of,
    site,
)

_FIRST = 10_000  # beyond the layers of every encoder, see `memobert_flow.embeddings`


class Draws:
    """What the dropouts of a model draw by in this pass: rng [2] int64; keys [B] int64 of the samples; offsets
    [B + 1] int32 by number of packed rows."""

    def __init__(self) -> None:
        self.rng: Tensor | None = None
        self.keys: Tensor | None = None
        self.offsets: dict[int, Tensor] = {}

    def note(self, rng: Tensor | None, keys: Tensor, offsets: dict[int, Tensor]) -> None:
        """Before a part of a model is called."""
        self.rng, self.keys, self.offsets = rng, keys, offsets


class AdapterDropout(nn.Module):
    """Dropout of packed rows [N, C]. number: of the map that is adapted, in its model."""

    def __init__(self, p: float, number: int, draws: Draws):
        super().__init__()
        self.p, self.site, self.draws = p, site(_FIRST + number, Place.ADAPTER), draws

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not drop_threshold(self.p) or not x.numel():
            return x
        if self.draws.rng is None:
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        return x * self._factors(self.draws.offsets[x.shape[0]], *x.shape).to(x.dtype)

    def _factors(self, offsets: Tensor, rows: int, width: int) -> Tensor:
        rng, keys = self.draws.rng, self.draws.keys
        if not keys.is_cpu:
            return hidden_keep_mask(rng, self.site, keys, offsets, rows, width, self.p) * keep_scale(self.p)
        longest = int(offsets.diff().max())
        sample, position = (
            places.clamp(max=most - 1)
            for places, most in zip(rows_of(offsets, rows), (len(keys), longest), strict=True)
        )
        return keep_factors(rng, self.site, keys, longest, width, self.p)[sample, position]


def of_samples(samples: int, device: torch.device) -> Tensor:
    """Offsets [B + 1] int32 of one row a sample."""
    return torch.arange(samples + 1, dtype=torch.int32, device=device)

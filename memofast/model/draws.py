"""Random numbers of a forward pass, for dropout and noise: Philox numbers by sample and step, one site after another in
the order of the pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memofast.ops.philox import (
    Place,
    Purpose,
    draw,
    drop_threshold,
    keep_factors,
    site,
    stream_key,
)


class Draws:
    """The random numbers of one forward pass. rng [2] int64: seed and update; None: nothing is dropped. keys [B]
    int64: the samples' names."""

    def __init__(self, rng: Tensor | None, keys: Tensor):
        self._rng, self._keys, self._sites = rng, keys, 0

    @property
    def active(self) -> bool:
        """Whether anything is drawn."""
        return self._rng is not None

    def dropped(self, values: Tensor, p: float) -> Tensor:
        """Args: values [B, C], or [B, L, C] whose draws do not depend on L; p: share set to 0. The others are
        scaled."""
        mask = self.mask(values.shape, p)
        return values if mask is None else values * mask.to(values.dtype)

    def chosen(self, lengths: Tensor, most: int, share: float, part: int) -> Tensor:
        """[B, most] bool: rows of samples of these lengths [B] int64, each with a probability; none where nothing is
        dropped. part: draws of another differ; the same may be asked for again."""
        if self._rng is None or not share:
            return torch.zeros(len(lengths), most, dtype=torch.bool, device=lengths.device)
        place = torch.arange(most, device=lengths.device)
        key = stream_key(self._rng, Purpose.AUGMENTATION, site(part, Place.HEAD))
        words = draw(key, self._keys[:, None], place, torch.zeros_like(place))[..., 0]
        return (words < round(share * 2**32)) & (place < lengths[:, None])

    def mask(self, shape: torch.Size | tuple[int, ...], p: float) -> Tensor | None:
        """What values of this shape, [B, C] or [B, L, C], are multiplied with; None: nothing is dropped."""
        number, self._sites = self._sites, self._sites + 1  # a site is counted whether or not it drops
        if self._rng is None or not drop_threshold(p):
            return None
        factors = keep_factors(
            self._rng, site(number, Place.HEAD), self._keys, shape[1] if len(shape) == 3 else 1, shape[-1], p
        )
        return factors.view(shape)

    def normal(self, width: int) -> Tensor:
        """Numbers [B, width] of the standard normal distribution. Raises: `ValueError` where nothing is drawn."""
        number, self._sites = self._sites, self._sites + 1
        if self._rng is None:
            raise ValueError("what draws numbers needs rng [2] int64 (seed, step)")
        blocks = torch.arange(-(-width // 4), device=self._keys.device)
        key = stream_key(self._rng, Purpose.DROPOUT, site(number, Place.HEAD))
        words = draw(key, self._keys[:, None], torch.zeros_like(blocks), blocks).to(torch.float64)
        radius = (-2 * ((words[..., :2] + 0.5) / 2**32).log()).sqrt()  # Box and Muller's, of two pairs of words
        angle = words[..., 2:] * (2 * torch.pi / 2**32)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 2).flatten(1)[:, :width].float()

    def of_attention(self, p: float) -> dict[str, Any]:
        """The options by which `ops.attention` drops probabilities itself."""
        number, self._sites = self._sites, self._sites + 1
        if self._rng is None or not drop_threshold(p):
            return {}
        return {"p": p, "rng": self._rng, "sample_keys": self._keys, "site": site(number, Place.HEAD)}

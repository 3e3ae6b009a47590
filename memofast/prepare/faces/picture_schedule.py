"""How the pictures of a DenseFace training change: their size over a one-cycle training, and each at random."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from memofast.model.face_networks.densenet import SIDE

_SHIFT = 8  # pixels, as padding by 8 and a random crop
_TURN = (-15.0, 16.0)  # degrees
_LARGE = {48: 0.22, SIDE: 0.18}  # share of a full one-cycle training on pictures of this side
_LEAST = {48: 0.5, SIDE: 0.7}  # fullness from which these sides pay: 9 of 34 epochs, 17 of 34
_TINY, _SMALL = 24, 32  # sides before
_AVERAGED = 0.2 * _LARGE[SIDE]  # share of the steps of a full training that the average of weights reaches back


def fullness(share: float) -> float:
    """How full a training is, from 0 to 1, which has this share of the epochs that its recipe was made for: the root.

    A short one-cycle training sees smaller pictures and milder changes of them, as it has no time for either to pay.
    """
    return min(1.0, math.sqrt(share))


def augment(pixels: Tensor, rng: np.random.Generator, full: float = 1.0) -> Tensor:
    """[n, 1, 64, 64] raw pixels, each shifted by up to 8, turned by -15 to 16 degrees, and mirrored half the time;
    black outside. Shifts and turns are `full` (0 to 1) times as large."""
    count, most = len(pixels), round(_SHIFT * full)
    angle = np.deg2rad(full * rng.uniform(*_TURN, count))
    mirror = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    shift = rng.integers(-most, most + 1, (count, 2)) * (2 / SIDE)
    theta = np.empty((count, 2, 3), np.float32)
    theta[:, 0] = np.stack([np.cos(angle) * mirror, -np.sin(angle), shift[:, 0]], 1)
    theta[:, 1] = np.stack([np.sin(angle) * mirror, np.cos(angle), shift[:, 1]], 1)
    grid = F.affine_grid(torch.from_numpy(theta), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)


def side_at(done: float, full: float = 1.0) -> int:
    """Side in pixels of the pictures after this share of a one-cycle training of this fullness: small pictures teach
    the most per second."""
    large = {side: share * full for side, share in _LARGE.items() if full >= _LEAST[side]}
    small = 1 - sum(large.values())
    if done <= small or not large:
        return _TINY if done < small * (1 - full) / 2 else _SMALL
    return SIDE if done > 1 - large.get(SIDE, 0) else 48


def averaging_decay(full: float, steps: float) -> float:
    """Decay per step of the average of a training's weights: it reaches back a small part of the last size of pictures,
    as weights from before fit smaller ones."""
    return max(0.0, 1 - 1 / (_AVERAGED * full * steps))

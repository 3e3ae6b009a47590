"""Random changes of face crops, the same for all of a clip; every number is Philox's.

Source of crop, mirror and turn: MEmoBERT, uniterbackbone (padding by 8 of 112 pixels, half, -15 to 16 degrees).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from memofast.ops.philox import Place, Purpose, below, draw, lanes16, rows_of, site, stream_key

SHIFT = 8 / 112  # of the side
_TURN = (-15.0, 16.0)  # degrees
_FINEST = 1 << 16  # steps of a turn


def augmented(pictures: Tensor, rng: Tensor, sample_keys: Tensor, offsets: Tensor, noise: float) -> Tensor:
    """Pictures [n, 1, side, side] of grey levels, shifted by up to 8 of 112 pixels, turned by -15 to 16 degrees and
    mirrored half the time, black outside, with `noise` of up to so many grey levels on every pixel.

    Args: rng [2] int64, seed and update; sample_keys [B] int64; offsets [B+1] int32, first picture of each clip.
    """
    sample, position = rows_of(offsets, len(pictures))
    sample = sample.clamp(max=max(len(sample_keys) - 1, 0))
    key = stream_key(rng, Purpose.AUGMENTATION, site(0, Place.EMBEDDING))
    nothing = torch.zeros_like(sample_keys)
    words = draw(key, sample_keys, nothing, nothing)
    grid = F.affine_grid(_changes(words, pictures.shape[-1])[sample], list(pictures.shape), align_corners=False)
    changed = F.grid_sample(pictures, grid, align_corners=False)
    return changed + _noise(key, sample_keys[sample], position, pictures, noise) if noise else changed


def _changes(words: Tensor, side: int) -> Tensor:
    """Four words per clip [B, 4] to what `affine_grid` takes [B, 2, 3]."""
    most = round(SHIFT * side)
    across, down = ((below(words[:, n], 2 * most + 1) - most).float() * (2 / side) for n in (0, 1))
    turned = (below(words[:, 2], _FINEST).float() + 0.5) / _FINEST
    angle = (_TURN[0] + (_TURN[1] - _TURN[0]) * turned) * (math.pi / 180)
    mirror = 1.0 - 2.0 * below(words[:, 3], 2).float()
    one = torch.stack((angle.cos() * mirror, -angle.sin(), across), 1)
    other = torch.stack((angle.sin() * mirror, angle.cos(), down), 1)
    return torch.stack((one, other), 1)


def _noise(key: tuple[Tensor, Tensor], keys: Tensor, position: Tensor, pictures: Tensor, most: float) -> Tensor:
    """Uniform between -most and most for every pixel: position = picture within its clip + 1, block = pixel // 8."""
    pixels = pictures[0].numel()
    blocks = torch.arange((pixels + 7) // 8, device=pictures.device)
    lanes = lanes16(draw(key, keys[:, None], position[:, None] + 1, blocks)).flatten(1)[:, :pixels]
    return ((lanes.float() + 0.5) / 32768 - 1).mul(most).view_as(pictures)

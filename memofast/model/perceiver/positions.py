"""Fourier features of positions along axes."""

import math

import torch
from torch import Tensor


def fourier_features(positions: Tensor, bands: int, resolutions: tuple[int, ...]) -> Tensor:
    """[n, d + 2 d bands] float32: the positions themselves, then sines of all axes, then cosines; of each axis at
    frequencies from 1 to half its resolution.

    Args: positions: [n, d] float32 in [-1, 1]; resolutions: of each axis. Source: Perceiver (Jaegle et al., 2021), as
        transformers rounds it.
    """
    frequencies = torch.stack([torch.linspace(1.0, size / 2, bands, device=positions.device) for size in resolutions])
    angles = math.pi * (positions[:, :, None] * frequencies).flatten(1)
    return torch.cat([positions, angles.sin(), angles.cos()], 1)


def axis_tables(sizes: tuple[int, ...], bands: int, resolutions: tuple[int, ...]) -> Tensor:
    """[sum of sizes, d + 2 d bands] float32: what each place of each axis adds to the features of a position of the
    grid; columns that belong to other axes are zero."""
    axes = len(sizes)
    owner = torch.cat([torch.arange(axes), torch.arange(axes).repeat_interleave(bands).repeat(2)])
    tables = []
    for axis, size in enumerate(sizes):
        positions = torch.zeros(size, axes)
        positions[:, axis] = torch.linspace(-1.0, 1.0, size)
        tables.append(fourier_features(positions, bands, resolutions) * (owner == axis))
    return torch.cat(tables)


def decoder_positions(points: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Where points of a flattened grid lie for the decoder, -1 + 2 i / n (the encoder's grid ends at 1): [n, d]."""
    places = torch.stack(torch.unravel_index(points, sizes), 1)
    return -1 + 2 * places / torch.tensor(sizes, device=points.device)

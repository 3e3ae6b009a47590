"""The cross-attention from learned latents to pixels and sound, without a row of its inputs ever being made.

A row is [values | position | padding], normed: (x - mean) / deviation * gain + bias, linear but for two numbers.
Queries are those of learned latents, so that projection, gain and the tables of positions fold into them, and what they
gather is projected afterwards. The label's row is always the learned one that hides it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memofast import ops
from memofast.model.perceiver.configuration import PATCH_WIDTH, PICTURE_POSITION, SOUND_POSITION
from memofast.model.perceiver.layers import Dropout, Layer


class InputRows(NamedTuple):
    """What rows of a modality have besides their values: positions, [places, width] of its tables, and padding [1, the
    rest]."""

    positions: Tensor
    padding: Tensor


class Share(NamedTuple):
    """What latents gathered of some of the rows, by their own softmax.

    context: [B, L, C], sum of probability / deviation times (row - mean); mass: [B, L], of probabilities; lse: [B, L].
    """

    context: Tensor
    mass: Tensor
    lse: Tensor


def first_attention(
    layer: Layer,
    latents: Tensor,
    pixels: Tensor | None,
    sound: Tensor | None,
    picture: InputRows,
    heard: InputRows,
    label: Tensor,
    grid: tuple[int, int, int],
    dropout: Dropout,
) -> Tensor:
    """Latents after the first cross-attention, [B, L, D].

    Args: latents: [L, D]; pixels: [B, T H W, 48], None: no picture rows; sound: [B, patches, samples], None: no sound
        rows; label: [1, C], the row that stands for the hidden label.
    """
    own = layer.projections
    with torch.autocast(latents.device.type, enabled=False):
        norm = own.layernorm2
        queries = own.query(own.layernorm1(latents))
        folded = (queries @ own.key.weight) * (queries.shape[1] ** -0.5) * norm.weight
        samples = len(pixels if pixels is not None else sound)
        shares = [_few_rows(folded, sound, heard, label, samples, norm.eps, dropout, grid)]
        if pixels is not None:
            shares.append(_pictures(folded, pixels, picture, grid, norm.eps, dropout))
        gathered = _joined(shares)
        context = gathered.context * norm.weight + gathered.mass[..., None] * norm.bias
        context = context @ own.value.weight.T + gathered.mass[..., None] * own.value.bias
    return layer.end(context, latents)


def _joined(shares: list[Share]) -> Share:
    """One softmax over the rows of all shares."""
    lse = torch.stack([share.lse for share in shares]).logsumexp(0)
    weights = [(share.lse - lse).exp() for share in shares]
    context = sum(share.context * weight[..., None] for share, weight in zip(shares, weights, strict=True))
    mass = sum(share.mass * weight for share, weight in zip(shares, weights, strict=True))
    return Share(context, mass, lse)


def _pictures(
    folded: Tensor, pixels: Tensor, rows: InputRows, grid: tuple[int, int, int], eps: float, dropout: Dropout
) -> Share:
    width, end = folded.shape[1], PATCH_WIDTH + PICTURE_POSITION
    tables, padding = rows.positions.to(folded.dtype), rows.padding[0]
    places = folded[:, PATCH_WIDTH:end] @ tables.T
    constant = torch.zeros_like(places)
    constant[:, : grid[0]] = (folded[:, end:] @ padding)[:, None]  # every row has one place of the first axis
    queries = torch.cat([folded[:, :PATCH_WIDTH], -folded.sum(1, keepdim=True), places + constant], 1)
    mean, scale = _statistics(pixels, tables, padding, grid, width, eps)
    gathered = ops.separable_attention(queries, pixels, mean, scale, grid, **dropout.options(0))
    values, mean_sum, axes = gathered.rows.split([PATCH_WIDTH, 1, sum(grid)], -1)
    whole = axes[..., : grid[0]].sum(-1, keepdim=True)  # of all weights
    context = torch.cat([values, axes @ tables, whole * padding], -1) - mean_sum
    return Share(context, gathered.mass, gathered.lse)


def _statistics(
    pixels: Tensor, tables: Tensor, padding: Tensor, grid: tuple[int, int, int], width: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation of whole rows, [B, N] each."""
    values = pixels.to(tables.dtype)
    first, second = values.sum(-1), torch.einsum("bnp,bnp->bn", values, values)
    for power, total in ((1, first), (2, second)):
        axes = [part.pow(power).sum(1) for part in tables.split(grid)]
        place = axes[0][:, None, None] + axes[1][:, None] + axes[2]
        total += place.flatten()
    mean = (first + padding.sum()) / width
    variance = (second + padding.square().sum()) / width - mean.square()
    return mean, (variance + eps).rsqrt()


def _few_rows(
    folded: Tensor,
    sound: Tensor | None,
    rows: InputRows,
    label: Tensor,
    samples: int,
    eps: float,
    dropout: Dropout,
    grid: tuple[int, int, int],
) -> Share:
    """Sound, whose positions are as many as its rows, and the label; they follow the pictures' rows in the numbering of
    dropout."""
    label_row = (label - label.mean()) * (label.var(correction=0) + eps).rsqrt()
    scores = (folded @ label_row.T).expand(samples, -1, -1)
    first = grid[0] * grid[1] * grid[2]
    if sound is None:
        lse = scores[..., 0]
        used = dropout.applied(torch.ones_like(scores), 0, first + rows.positions.shape[0])
        return Share(used * label_row, used.sum(-1), lse)
    sound, positions, padding = sound.to(folded.dtype), rows.positions.to(folded.dtype), rows.padding[0]
    patch, width = sound.shape[2], folded.shape[1]
    end = patch + SOUND_POSITION
    mean, scale = _sound_statistics(sound, positions, padding, width, eps)
    # what is alike for all samples is multiplied once
    alike = folded[:, patch:end] @ positions.T + (folded[:, end:] @ padding)[:, None]
    of_sound = folded[:, :patch] @ sound.mT + alike - folded.sum(1, keepdim=True) * mean[:, None]
    scores = torch.cat([of_sound * scale[:, None], scores], -1)
    lse = scores.logsumexp(-1)
    used = dropout.applied((scores - lse[..., None]).exp(), 0, first)
    mass = used.sum(-1)
    weights, of_label = used[..., :-1] * scale[:, None], used[..., -1:]
    whole = weights.sum(-1, keepdim=True)
    context = torch.cat([weights @ sound, weights @ positions, whole * padding], -1)
    return Share(context - weights @ mean[..., None] + of_label * label_row, mass, lse)


def _sound_statistics(
    sound: Tensor, positions: Tensor, padding: Tensor, width: int, eps: float
) -> tuple[Tensor, Tensor]:
    mean = (sound.sum(-1) + positions.sum(1) + padding.sum()) / width
    squares = sound.square().sum(-1) + positions.square().sum(1) + padding.square().sum()
    return mean, (squares / width - mean.square() + eps).rsqrt()

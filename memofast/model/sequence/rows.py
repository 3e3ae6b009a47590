"""Rows of one modality of a batch, as sequence networks read them, and bringing modalities to common steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.batch import pad_rows


@dataclass(frozen=True)
class Rows:
    """values [B, L, D]: rows of each sample, 0 past its end; L is at least 1. lengths [B] int64: how many are the
    sample's; may be 0."""

    values: Tensor
    lengths: Tensor

    @classmethod
    def packed(cls, values: Tensor, offsets: Tensor, length: int | None = None) -> Rows:
        """Args: values [rows, D]; offsets [B+1] int32; length: L; None: the longest sample's."""
        padded = pad_rows(values, offsets, length)
        return cls(padded if padded.shape[1] else F.pad(padded, (0, 0, 0, 1)), offsets.diff().to(torch.int64))

    @property
    def inside(self) -> Tensor:
        """[B, L] bool: where rows are the sample's."""
        return torch.arange(self.values.shape[1], device=self.values.device) < self.lengths[:, None]

    def with_values(self, values: Tensor) -> Rows:
        """Other values [B, L, C] of the same steps, set to 0 past a sample's end."""
        return replace(self, values=values * self.inside[..., None])

    def whole(self) -> Rows:
        """The same with padding taken for rows, as the originals read them."""
        return replace(self, lengths=torch.full_like(self.lengths, self.values.shape[1]))

    def over(self, lengths: Tensor) -> Rows:
        """The same read over other lengths [B], padding and all, as originals read rows over those of the text."""
        return replace(self, lengths=lengths.clamp(max=self.values.shape[1]))

    def last(self, states: Tensor | None = None) -> Tensor:
        """Of states [B, L, C], one a row, each sample's last [B, C]; 0 where it has no rows. None: of the values."""
        states = self.values if states is None else states
        place = (self.lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, place)[:, 0] * (self.lengths > 0)[:, None]

    def mean(self) -> Tensor:
        """[B, D]: mean of each sample's rows; 0 where it has none."""
        return self.values.sum(1) / self.lengths.clamp(min=1)[:, None]


def aligned(rows: Mapping[str, Rows]) -> dict[str, Rows]:
    """All modalities in the same steps of a sample: those of the first modality that has rows in it; the rows of
    others are averaged over each step's share of them, as adaptive average pooling does, or repeated where they are
    fewer; 0 where a modality has none."""
    steps = torch.zeros_like(next(iter(rows.values())).lengths)
    for one in rows.values():
        steps = torch.where(steps == 0, one.lengths, steps)
    return {name: _in_steps(one, steps) for name, one in rows.items()}


def averaged_as_padded(rows: Mapping[str, Rows]) -> dict[str, Rows]:
    """All modalities in as many steps as the first one is padded to, padding read as rows: a step of a longer one is
    the mean of every n-th row from it on, after its last row was repeated to a multiple of n.

    Source: MMSA 2.2.1's alignment by `avg_pool`, which does this and not the mean of neighbours; a shorter modality is
    its rows with the last repeated.
    """
    steps = next(iter(rows.values())).values.shape[1]
    found = {}
    for name, one in rows.items():
        lacking = -one.values.shape[1] % steps
        values = torch.cat((one.values, one.values[:, -1:].expand(-1, lacking, -1)), 1)
        values = values.unflatten(1, (-1, steps)).mean(1)
        found[name] = Rows(values, torch.full_like(one.lengths, steps))
    return found


def _in_steps(rows: Rows, steps: Tensor) -> Rows:
    """Rows averaged over `steps` [B] int64 parts of each sample."""
    length, most = max(int(steps.max()), 1), rows.values.shape[1]
    if torch.equal(rows.lengths, steps):
        return Rows(rows.values[:, :length], steps)
    step = torch.arange(length, device=steps.device)[None, :]
    divisor = steps.clamp(min=1)[:, None]
    begin = step * rows.lengths[:, None] // divisor
    end = -(-(step + 1) * rows.lengths[:, None] // divisor)
    row = torch.arange(most, device=steps.device)
    share = (row >= begin[..., None]) & (row < end[..., None]) & (step < steps[:, None])[..., None]
    weight = share.to(rows.values.dtype) / share.sum(-1, keepdim=True).clamp(min=1)
    return Rows(weight @ rows.values, steps)

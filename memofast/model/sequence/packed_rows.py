"""Rows of a batch without padding, as attention over true lengths reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.model.draws import Draws
from memofast.model.sequence.rows import Rows


@dataclass(frozen=True)
class PackedRows:
    """values [N, D]: the samples' rows one after the other. offsets [B+1] int32: where they begin. longest: most rows
    of a sample. cells [N] int64: where they are among [B, longest]; None: everywhere."""

    values: Tensor
    offsets: Tensor
    longest: int
    cells: Tensor | None

    @classmethod
    def of(cls, rows: Rows) -> PackedRows:
        longest = max(int(rows.lengths.max()), 1)
        rows = Rows(rows.values[:, :longest], rows.lengths)
        values, inside = rows.values.flatten(0, 1), rows.inside.flatten()
        cells = None if bool(inside.all()) else inside.nonzero().flatten()
        offsets = F.pad(rows.lengths.cumsum(0), (1, 0)).to(torch.int32)
        return cls(values if cells is None else values[cells], offsets, longest, cells)

    def with_values(self, values: Tensor) -> PackedRows:
        """Other values [N, C] of the same rows."""
        return replace(self, values=values)

    def places(self) -> Tensor:
        """[N] int64: which row of its sample each is."""
        cells = self.cells
        if cells is None:
            cells = torch.arange(len(self.values), device=self.values.device)
        return cells % self.longest

    def padded(self, length: int) -> Tensor:
        """[B, length, D], 0 past a sample's end; of no sample more rows than length."""
        samples = len(self.offsets) - 1
        if self.cells is None:
            values = self.values
        else:
            values = self.values.new_zeros(samples * self.longest, self.values.shape[1])
            values = values.index_put((self.cells,), self.values)
        return F.pad(values.unflatten(0, (samples, self.longest)), (0, 0, 0, length - self.longest))

    def dropped(self, values: Tensor, p: float, draws: Draws) -> Tensor:
        """`Draws.dropped` of values [N, C] of these rows."""
        mask = draws.mask((len(self.offsets) - 1, self.longest, values.shape[1]), p)
        if mask is None:
            return values
        mask = mask.flatten(0, 1)
        return values * (mask if self.cells is None else mask[self.cells]).to(values.dtype)

    def ends(self) -> PackedRows:
        """Each sample's last row, where it has any."""
        present = self.offsets.diff() > 0
        cells = None if bool(present.all()) else present.nonzero().flatten()
        last = self.offsets[1:].to(torch.int64) - 1
        offsets = F.pad(present.cumsum(0), (1, 0)).to(torch.int32)
        return PackedRows(self.values[last if cells is None else last[cells]], offsets, 1, cells)

    def last(self) -> Tensor:
        """Each sample's last row [B, D]; 0 where it has none."""
        ends = self.ends()
        if ends.cells is None:
            return ends.values
        nothing = ends.values.new_zeros(len(self.offsets) - 1, ends.values.shape[1])
        return nothing.index_put((ends.cells,), ends.values)

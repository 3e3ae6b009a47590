"""The one loop that runs a model over samples: packed by length, without gradients, every result finite or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from memofast.data import PackedBatch, runs_by_length
from memofast.devices import autocast
from memofast.errors import MemofastError

ROWS = 4096  # of a batch without gradients
_MOST_NAMED = 8


class Samples(Protocol):
    """What the loop runs over, as a `Split`: lengths [n, 3] rows of each sample by modality, and its name for
    messages."""

    lengths: np.ndarray
    ids: Sequence[str]

    def pack(self, indices: np.ndarray) -> PackedBatch: ...


@dataclass(frozen=True)
class RowResults:
    """Results of rows, sample after sample: values [rows, ...]; offsets [B+1], first row of each sample."""

    values: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Results:
    """What was computed of a batch. indices [B] of its samples, in its order; batch: as it was packed, on the host;
    found: by name [B, ...] or, of `RowResults`, [rows, ...], float32."""

    indices: np.ndarray
    batch: PackedBatch
    found: Mapping[str, np.ndarray]


def run_over(
    samples: Samples,
    compute: Callable[[PackedBatch], Mapping[str, Tensor | RowResults]],
    device: torch.device | str,
    what: str,
    where: str = "",
    *,
    rows: int = ROWS,
    precision: str = "fp32",
    shown: Callable[[PackedBatch], PackedBatch] | None = None,
    skip: Callable[[np.ndarray], bool] | None = None,
) -> Iterator[Results]:
    """Run a model over samples, the short ones first, in batches that depend on their lengths alone.

    Args: compute: results of a batch on the device, by name, [B, ...] float or `RowResults`. what, where: what they are
        and where the samples are from, for messages. rows: most joint rows of a batch of several samples. shown: what
        the model sees of a batch. skip: whether to leave out a batch of these indices.
    Raises: `MemofastError` for results that are not finite, naming the samples.
    """
    device = torch.device(device)
    for indices in runs_by_length(samples.lengths, rows):
        if skip and skip(indices):
            continue
        batch = samples.pack(indices)
        if shown:
            batch = shown(batch)
        with torch.no_grad(), autocast(precision, device):
            results = compute(batch.to(device))
        found, finite = {}, np.ones(len(indices), bool)
        for name, result in results.items():
            values = (result.values if isinstance(result, RowResults) else result).float().cpu().numpy()
            bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
            if isinstance(result, RowResults):
                bad = np.searchsorted(result.offsets.cpu().numpy(), bad, side="right") - 1
            finite[bad] = False
            found[name] = values
        if not finite.all():
            named = ", ".join(str(samples.ids[i]) for i in indices[~finite][:_MOST_NAMED])
            raise MemofastError(
                f"{what} for {named}{where} are not finite; check the model's weights, or prepare these samples again"
            )
        yield Results(indices, batch, found)

"""Mean and standard deviation of feature rows, as fresh projections need them."""

import warnings

import numpy as np
import torch
from torch import Tensor

from memofast.data.corpus import Split
from memofast.errors import MemofastWarning

_SAMPLES = 2000  # that are looked at, evenly spaced over the split


def feature_statistics(split: Split, name: str) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation [width] float32 of a split's `visual` or `speech` rows, or of a stream's; None where
    it has none. Columns that never change are told of."""
    streams = split.corpus.streams
    store = streams[name][0] if name in streams else split.corpus.stores.get(name)
    if store is None:
        return None
    chosen = np.unique(np.linspace(0, len(split) - 1, _SAMPLES).astype(np.int64))
    ids = [split.ids[i] for i in chosen if split.ids[i] in store.rows_of]
    count, first, total, squares = 0, None, 0.0, 0.0
    for id in ids:
        rows = np.asarray(store.read(id)["rows"], np.float64)
        if first is None and len(rows):
            first = rows[0]  # from which all are measured: of a column that never changes nothing is left
        if len(rows):
            rows = rows - first
            count, total, squares = count + len(rows), total + rows.sum(0), squares + np.square(rows).sum(0)
    if not count:
        return None
    mean = total / count
    std = torch.from_numpy(np.sqrt(np.maximum(squares / count - np.square(mean), 0))).float()
    mean = torch.from_numpy(first + mean).float()
    if still := int((~changing(mean, std)).sum()):
        what = "no column" if still == len(std) else f"{still:,} of {len(std):,} columns"
        told = "never change, so they say nothing" if still < len(std) else "ever changes, so they say nothing"
        warnings.warn(
            f"{name} rows of {split.name} of corpus {split.corpus.path}: {what} {told}", MemofastWarning, stacklevel=2
        )
    return mean, std


def changing(mean: Tensor, std: Tensor) -> Tensor:
    """Which columns [width] bool of rows change, by more than their rounding in fp32."""
    return std > torch.maximum(1e-6 * mean.abs(), std.new_tensor(1e-12))

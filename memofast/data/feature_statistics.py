"""Mean and standard deviation of feature rows, as fresh projections need them."""

import numpy as np
import torch
from torch import Tensor

from memofast.data.corpus import Split

_SAMPLES = 2000  # that are looked at, evenly spaced over the split


def feature_statistics(split: Split, name: str) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation [width] float32 of a split's `visual` or `speech` rows, or of a stream's; None where
    it has none."""
    streams = split.corpus.streams
    store = streams[name][0] if name in streams else split.corpus.stores.get(name)
    if store is None:
        return None
    chosen = np.unique(np.linspace(0, len(split) - 1, _SAMPLES).astype(np.int64))
    ids = [split.ids[i] for i in chosen if split.ids[i] in store.rows_of]
    count, total, squares = 0, 0.0, 0.0
    for id in ids:
        rows = np.asarray(store.read(id)["rows"], np.float64)
        count, total, squares = count + len(rows), total + rows.sum(0), squares + np.square(rows).sum(0)
    if not count:
        return None
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()

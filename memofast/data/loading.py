"""Batches in their order: one pass for validation, and endless streams for training."""

from collections.abc import Iterator

import numpy as np
import torch

from memofast.data import sampling
from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Split


def epoch(split: Split, capacity: Capacity, *, dtype: torch.dtype | None = None) -> Iterator[PackedBatch]:
    """All samples of a split once, in the split's order, in batches that fit the capacity.

    Raises: `MemofastError` for a sample longer than the capacity.
    """
    sampling.check_fits(split, capacity)
    filling = sampling.Filling(split.lengths, capacity)
    start = 0
    while start < len(split):
        end = filling.run(start)
        yield split.pack(np.arange(start, end), dtype=dtype)
        start = end

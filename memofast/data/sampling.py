"""Which samples form which batch: order of an epoch, and runs of it that fit a capacity."""

import numpy as np
import torch

from memofast.data.batch import Capacity
from memofast.data.corpus import Split
from memofast.errors import MemofastError
from memofast.ops.philox import Purpose, draw, stream_key


def shuffled(keys: np.ndarray, seed: int, epoch: int, site: int = 0) -> np.ndarray:
    """Order of an epoch: argsort of the first two words of Philox(seed, SHUFFLE, epoch, key), word 1 the more significant.

    Args: keys [n] int64 sample keys. site: which stream of the corpus this is. Returns: [n] int64.
    """
    rng = torch.tensor([seed, epoch], dtype=torch.int64)
    zero = torch.zeros(1, dtype=torch.int64)
    words = draw(stream_key(rng, Purpose.SHUFFLE, site), torch.from_numpy(keys), zero, zero).numpy().astype(np.uint64)
    return np.argsort((words[:, 1] << np.uint64(32)) | words[:, 0], kind="stable")


class Filling:
    """Cuts a sequence of samples into the longest runs that fit a capacity.

    Args: lengths [n, 3] text, visual and speech rows in sequence order.
    """

    def __init__(self, lengths: np.ndarray, capacity: Capacity):
        self._ends = np.zeros((len(lengths) + 1, 3), np.int64)
        np.cumsum(lengths, axis=0, out=self._ends[1:])
        self._samples = capacity.samples
        self._rows = (capacity.text, capacity.visual, capacity.speech)

    def run(self, start: int) -> int:
        """Where the run that begins at `start` ends; at least `start + 1` where each sample fits the capacity alone."""
        ends = [
            int(np.searchsorted(self._ends[:, m], self._ends[start, m] + rows, side="right")) - 1
            for m, rows in enumerate(self._rows)
        ]
        return min(start + self._samples, *ends)


def check_fits(split: Split, capacity: Capacity) -> None:
    """Raises `MemofastError` naming the first sample that is longer than a whole batch."""
    limits = np.array((capacity.text, capacity.visual, capacity.speech))
    too_long = np.flatnonzero((split.lengths > limits).any(1))
    if capacity.samples < 1:
        raise MemofastError("a batch needs room for at least one sample")
    if len(too_long):
        rows = split.lengths[too_long[0]]
        raise MemofastError(
            f"sample {split.ids[too_long[0]]!r} of corpus {split.corpus.name} has {rows[0]} text, {rows[1]} visual and {rows[2]} speech rows; "
            f"a batch holds {limits[0]}, {limits[1]} and {limits[2]} ({len(too_long)} such samples): raise the capacity or leave out long samples"
        )

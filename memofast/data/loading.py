"""Batches in their order: one pass for validation, and endless streams for training."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from memofast import _C
from memofast.data import sampling
from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Split
from memofast.data.sampling import Stream, Streams
from memofast.errors import MemofastError


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


@dataclass
class MicroBatch:
    """One batch of one stream; extra is what the loader's `transform` made of it, None without one."""

    batch: PackedBatch
    corpus: str
    objective: str | None
    extra: Any = None


@dataclass
class Update:
    """This rank's share of one update. step: number of the update, from 1."""

    step: int
    micro_batches: list[MicroBatch]


class Loader:
    """Iterates over updates for ever, packing ahead in background threads.

    Args:
        streams: what is drawn from, by weight; see `sampling.Stream`.
        capacity: room of one micro-batch.
        seed: of the run; with the update number it decides everything.
        micro_batches: of a whole update, over all ranks; rank r takes the r-th of `world` equal runs of them, so that the ranks'
            micro-batches in rank order are those of one process.
        mixing: `update` draws one stream for a whole update, `sample` one for each micro-batch.
        transform: called as `transform(micro_batch, step)` in the background; its result becomes `MicroBatch.extra`.
        prefetch: updates prepared ahead, at least 1. threads: background threads.
        dtype: type of the feature rows, None for the stored one. pin: page-locked memory (with CUDA).
        state: of `state_dict()`, to go on where it was taken.
    Raises: `MemofastError` for a sample longer than the capacity, streams of different widths, a state of other data.
        What fails in the background is raised at the update it belongs to.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        *,
        capacity: Capacity,
        seed: int,
        micro_batches: int = 1,
        rank: int = 0,
        world: int = 1,
        mixing: str = "update",
        transform: Callable[[MicroBatch, int], Any] | None = None,
        prefetch: int = 2,
        threads: int = 1,
        dtype: torch.dtype | None = None,
        pin: bool = False,
        state: dict[str, Any] | None = None,
    ):
        if micro_batches < 1 or micro_batches % world:
            raise MemofastError(
                f"{micro_batches} micro-batches cannot be shared equally by {world} ranks: use a multiple"
            )
        self._streams = Streams(streams, capacity, seed, micro_batches, mixing)
        share = micro_batches // world
        self._mine = slice(rank * share, (rank + 1) * share)
        self._transform, self._dtype, self._pin = transform, dtype, pin
        self._prefetch, self._threads = max(1, prefetch), threads
        self._position = self._streams.start if state is None else self._streams.position(state)

    def state_dict(self) -> dict[str, Any]:
        """The exact position after the last update handed out, as plain numbers and strings; the same on every rank."""
        return self._streams.state(self._position)

    def __iter__(self) -> Iterator[Update]:
        """Goes on after the last update handed out. Threads end with the iterator, at the latest with the program."""
        pool = ThreadPoolExecutor(
            self._threads, "memofast-loader", initializer=_C.set_calling_thread_parallelism, initargs=(1,)
        )
        ahead: deque[tuple[Any, int, list[Future[MicroBatch]]]] = deque()
        planned = self._position
        try:
            while True:
                while len(ahead) < self._prefetch:
                    step = planned.updates + 1
                    plans, planned = self._streams.plan(planned)
                    ahead.append((planned, step, [pool.submit(self._prepare, *p, step) for p in plans[self._mine]]))
                position, step, futures = ahead.popleft()
                update = Update(step, [future.result() for future in futures])
                self._position = position
                yield update
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, stream: Stream, indices: np.ndarray, step: int) -> MicroBatch:
        batch = stream.split.pack(indices, dtype=self._dtype, pin=self._pin)
        micro_batch = MicroBatch(batch, stream.name, stream.objective)
        if self._transform is not None:
            micro_batch.extra = self._transform(micro_batch, step)
        return micro_batch

"""Batches in their order: one pass for validation, and endless streams for training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from memofast import _C
from memofast.data import sampling
from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Split
from memofast.data.sampling import Draw, Stream, Streams
from memofast.data.view import View
from memofast.errors import MemofastError


def epoch(
    split: Split,
    capacity: Capacity,
    *,
    room: np.ndarray | None = None,
    shown: Mapping[str, np.ndarray] | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[PackedBatch]:
    """All samples of a split once, in the split's order, in batches that fit the capacity.

    Args: room [n, 3]: rows to make room for, where that is more than a sample's own. shown: by modality [n] int64,
        whose rows each sample shows.
    Raises: `MemofastError` for a sample longer than the capacity.
    """
    sampling.check_fits(split, capacity)
    lengths = split.lengths if room is None else np.maximum(split.lengths, room)
    filling = sampling.Filling(lengths, capacity, split.stream_lengths)
    start = 0
    while start < len(split):
        end = filling.run(start)
        whose = {modality: owners[start:end] for modality, owners in (shown or {}).items()}
        yield split.pack(np.arange(start, end), whose, dtype=dtype)
        start = end


class Work(Protocol):
    """What is done with a micro-batch in the loader's threads, besides packing it. step: number of the update, from
    1."""

    def places(self, draw: Draw, step: int) -> Mapping[str, np.ndarray] | None:
        """By modality [B] int64, indices into the draw's split: whose rows each sample shows; None: its own."""

    def views(self, micro_batch: MicroBatch, step: int) -> list[View]:
        """What the forward passes of this micro-batch read, and where they are read."""


@dataclass
class MicroBatch:
    """One batch of one draw; views: what the loader's work made of it, empty without one."""

    batch: PackedBatch
    draw: Draw
    views: list[View] = field(default_factory=list)

    @property
    def corpus(self) -> str:
        return self.draw.stream.name

    @property
    def objective(self) -> str | None:
        return self.draw.stream.objective


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
        micro_batches: of a whole update, over all ranks; rank r takes the r-th of `world` equal runs of them, so that
        the ranks' micro-batches in rank order are those of one process.
        mixing: `update` draws one stream for a whole update, `sample` one for each micro-batch.
        work: what is done in the background besides packing; None: nothing.
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
        work: Work | None = None,
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
        self._work, self._dtype, self._pin = work, dtype, pin
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
                    ahead.append(
                        (planned, step, [pool.submit(self._prepare, draw, step) for draw in plans[self._mine]])
                    )
                position, step, futures = ahead.popleft()
                update = Update(step, [future.result() for future in futures])
                self._position = position
                yield update
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, draw: Draw, step: int) -> MicroBatch:
        shown = self._work.places(draw, step) if self._work else None
        batch = draw.stream.split.pack(draw.indices, shown, dtype=self._dtype, pin=self._pin)
        micro_batch = MicroBatch(batch, draw)
        if self._work:
            micro_batch.views = self._work.views(micro_batch, step)
        return micro_batch

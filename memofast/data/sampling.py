"""Which samples form which batch: order of an epoch, runs of it that fit a capacity, and the draw between streams."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from memofast import _C
from memofast.data.batch import Capacity
from memofast.data.corpus import Split
from memofast.data.modality import FEATURES, MODALITIES
from memofast.errors import MemofastError
from memofast.ops.philox import Purpose, sample_words


def shuffled(keys: np.ndarray, seed: int, epoch: int, site: int = 0) -> np.ndarray:
    """Order of an epoch: argsort of the first two words of Philox(seed, SHUFFLE, epoch, key), word 1 the more
    significant.

    Args: keys [n] int64 sample keys. site: which stream of the corpus this is. Returns: [n] int64.
    """
    words = sample_words(torch.tensor([seed, epoch]), Purpose.SHUFFLE, site, torch.from_numpy(keys))
    words = words.numpy().astype(np.uint64)
    return np.argsort((words[:, 1] << np.uint64(32)) | words[:, 0], kind="stable")


class Filling:
    """Cuts a sequence of samples into the longest runs that fit a capacity.

    Args: lengths [n, 3] text, visual and speech rows in sequence order. streams: by name the rows of each sample [n] in
        that order.
    """

    def __init__(self, lengths: np.ndarray, capacity: Capacity, streams: Mapping[str, np.ndarray] | None = None):
        columns = np.column_stack([lengths, *(streams or {}).values()])
        self._ends = np.zeros((len(lengths) + 1, columns.shape[1]), np.int64)
        np.cumsum(columns, axis=0, out=self._ends[1:])
        self._samples = capacity.samples
        self._rows = _limits(capacity, streams or {})

    def run(self, start: int) -> int:
        """Where the run that begins at `start` ends; at least `start + 1` where each sample fits the capacity alone."""
        ends = [
            int(np.searchsorted(self._ends[:, m], self._ends[start, m] + rows, side="right")) - 1
            for m, rows in enumerate(self._rows)
        ]
        return min(start + self._samples, *ends)


def _limits(capacity: Capacity, streams: Iterable[str]) -> list[int]:
    """Rows that a batch holds, by modality and stream."""
    return [*(capacity.of(modality) for modality in MODALITIES), *(capacity.streams[name] for name in streams)]


def runs_by_length(lengths: np.ndarray, rows: int) -> list[np.ndarray]:
    """All samples once, the short ones first, in batches of at most `rows` joint rows, or of one sample.

    Args: lengths [n, 3]. Returns: per batch the samples' indices [B] int64; always the same for the same lengths.
    """
    joint = lengths.sum(1)
    order = np.argsort(joint, kind="stable")
    ends, runs, start = np.cumsum(joint[order]), [], 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + rows, side="right")))
        runs.append(order[start:end])
        start = end
    return runs


def check_fits(split: Split, capacity: Capacity, chosen: np.ndarray | None = None) -> None:
    """Raises `MemofastError` naming the first sample (of those at the indices `chosen`) that is longer than a whole
    batch."""
    names = [*MODALITIES, *split.stream_lengths]
    limits = _limits(capacity, split.stream_lengths)
    chosen = np.arange(len(split)) if chosen is None else chosen
    lengths = np.column_stack([split.lengths, *split.stream_lengths.values()])
    too_long = chosen[(lengths[chosen] > limits).any(1)]
    if capacity.samples < 1:
        raise MemofastError("a batch needs room for at least one sample")
    if len(too_long):
        rows = ", ".join(f"{count} {name}" for count, name in zip(lengths[too_long[0]], names, strict=True))
        holds = ", ".join(map(str, limits))
        raise MemofastError(
            f"sample {split.ids[too_long[0]]!r} of corpus {split.corpus.name} has {rows} rows; "
            f"a batch holds {holds} ({len(too_long)} such samples): raise the capacity or leave out long samples"
        )


@dataclass(eq=False)
class Stream:
    """Samples that are visited in turn, each once per epoch.

    split: where they come from. weight: how often the stream is drawn, relative to the others. objective: for which the
    stream is, None for any. eligible [n] bool: which samples of the split take part; None: all. name: of the corpus.
    room: called with indices [k] and the epoch, the most rows [k, 3] that each of these samples may come to show; None:
    its own.
    """

    split: Split
    weight: float = 1.0
    objective: str | None = None
    eligible: np.ndarray | None = None
    name: str = ""
    room: Callable[[np.ndarray, int], np.ndarray] | None = None

    def __post_init__(self):
        self.name = self.name or self.split.corpus.name

    @property
    def chosen(self) -> np.ndarray:
        """Indices of the samples that take part."""
        return np.arange(len(self.split)) if self.eligible is None else np.flatnonzero(self.eligible)

    @property
    def title(self) -> str:
        return f"{self.name}/{self.split.name}" + (f" for {self.objective}" if self.objective else "")


class Draw(NamedTuple):
    """What one micro-batch takes: indices into the split of its stream, all of one epoch."""

    stream: Stream
    indices: np.ndarray
    epoch: int


class Position(NamedTuple):
    """Updates planned so far, and for every stream its epoch and the next sample of that epoch's order."""

    updates: int
    streams: tuple[tuple[int, int], ...]


class _Order:
    """The order of one stream's current epoch."""

    def __init__(self, stream: Stream, site: int, seed: int, capacity: Capacity):
        self.stream = stream
        chosen = stream.chosen
        if stream.eligible is not None and len(stream.eligible) != len(stream.split):
            raise ValueError(f"stream {stream.title}: eligible must have {len(stream.split)} entries")
        if not len(chosen):
            raise MemofastError(f"stream {stream.title} has no samples it can use: drop the objective or the corpus")
        if stream.room is not None and stream.split.streams:
            raise MemofastError(
                f"stream {stream.title}: samples that show one another's rows cannot carry {stream.split.streams[0]} "
                "beside them, as no batch has room for that; leave the objective out"
            )
        check_fits(stream.split, capacity, chosen)
        self._chosen, self._site, self._seed, self._capacity = chosen, site, seed, capacity
        self.samples = len(chosen)
        self._epoch = -1
        keys = np.ascontiguousarray(stream.split.keys[chosen])
        self.fingerprint = hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()

    def take(self, epoch: int, start: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Indices into the split of the next batch, which ends with the epoch, and the position after it."""
        if epoch != self._epoch:
            split = self.stream.split
            self._indices = self._chosen[shuffled(split.keys[self._chosen], self._seed, epoch, self._site)]
            lengths = split.lengths[self._indices]
            if self.stream.room is not None:
                lengths = np.maximum(lengths, self.stream.room(self._indices, epoch))
            streams = {name: rows[self._indices] for name, rows in split.stream_lengths.items()}
            self._filling = Filling(lengths, self._capacity, streams)
            self._epoch = epoch
        end = self._filling.run(start)
        after = (epoch, end) if end < len(self._indices) else (epoch + 1, 0)
        return self._indices[start:end], after


class Streams:
    """Plans updates: which stream and which samples each micro-batch takes. A plan depends on nothing but its position.

    Several streams of one corpus (one per objective) shuffle with sites 0, 1, ..., so that they do not go in step.
    Raises: `MemofastError` for a sample longer than the capacity, a stream without samples, or feature widths that
        differ.
    """

    def __init__(self, streams: Sequence[Stream], capacity: Capacity, seed: int, micro_batches: int, mixing: str):
        if mixing not in ("update", "sample"):
            raise ValueError(f"mixing is 'update' or 'sample', not {mixing!r}")
        if not streams:
            raise MemofastError("there is no stream to draw from: name at least one corpus")
        _check_widths(streams)
        weights = np.array([stream.weight for stream in streams], np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise MemofastError("stream weights must be at least 0, and one of them more")
        ends = np.cumsum(weights) / weights.sum()
        self._thresholds = np.round(ends * 2.0**32).astype(np.int64)
        self._thresholds[np.flatnonzero(weights)[-1] :] = 2**32
        self._orders, seen = [], {}
        for stream in streams:
            site = seen.get(stream.name, 0)
            seen[stream.name] = site + 1
            self._orders.append(_Order(stream, site, seed, capacity))
        self._seed, self._micro_batches, self._mixing = seed, micro_batches, mixing
        self.start = Position(0, ((0, 0),) * len(streams))

    def _draw(self, step: int) -> list[int]:
        """The stream of each micro-batch: Philox(seed, STREAM, step, key 0), position = micro-batch, word 0."""
        seed = self._seed & (2**64 - 1)
        low, high, *_ = _C.philox(seed & 0xFFFFFFFF, seed >> 32, step, Purpose.STREAM, 0)  # the key of this step
        positions = range(self._micro_batches) if self._mixing == "sample" else [0] * self._micro_batches
        words = [_C.philox(low, high, 0, position, 0)[0] for position in positions]
        return np.searchsorted(self._thresholds, words, side="right").tolist()

    def plan(self, position: Position) -> tuple[list[Draw], Position]:
        """The draw of every micro-batch of the next update, over all ranks, and the position after it."""
        step, places, plans = position.updates + 1, list(position.streams), []
        for number in self._draw(step):
            epoch, start = places[number]
            indices, places[number] = self._orders[number].take(epoch, start)
            plans.append(Draw(self._orders[number].stream, indices, epoch))
        return plans, Position(step, tuple(places))

    def state(self, position: Position) -> dict[str, Any]:
        streams = [
            {"stream": order.stream.title, "samples": order.fingerprint, "epoch": place[0], "next": place[1]}
            for order, place in zip(self._orders, position.streams, strict=True)
        ]
        return {"seed": self._seed, "updates": position.updates, "streams": streams}

    def position(self, state: dict[str, Any]) -> Position:
        """Raises: `MemofastError` where the state was taken with another seed or other samples."""
        if state["seed"] != self._seed:
            raise MemofastError(
                f"the state to resume has seed {state['seed']}, the run {self._seed}: use the same seed"
            )
        there = [(entry["stream"], entry["samples"]) for entry in state["streams"]]
        here = [(order.stream.title, order.fingerprint) for order in self._orders]
        if there != here:
            names = sorted({title for title, _ in set(there) ^ set(here)}) or ["their order"]
            raise MemofastError(
                f"the data changed since the state to resume was saved ({', '.join(names)}): start a new run"
            )
        for order, entry in zip(self._orders, state["streams"], strict=True):
            if not 0 <= entry["next"] < order.samples:
                raise MemofastError(
                    f"the state to resume is at sample {entry['next']} of {entry['stream']}, of {order.samples}: "
                    "restore it or start a new run"
                )
        return Position(state["updates"], tuple((entry["epoch"], entry["next"]) for entry in state["streams"]))


def _check_widths(streams: Sequence[Stream]) -> None:
    for modality in (*FEATURES, *dict.fromkeys(name for stream in streams for name in stream.split.streams)):
        widths = {stream.split.corpus.width(modality): stream.split.corpus.name for stream in streams}
        widths.pop(0, None)
        if len(widths) > 1:
            (one, first), (two, second) = list(widths.items())[:2]
            raise MemofastError(
                f"{modality} rows are {one} wide in corpus {first} and {two} wide in {second}: "
                "prepare them with the same extractor"
            )

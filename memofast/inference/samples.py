"""Samples that were never in a store, and their batch, equal to what a corpus of them would give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from memofast.data.batch import PackedBatch, StreamRows, rounded_length
from memofast.data.modality import FEATURES, MODALITIES
from memofast.errors import MemofastError
from memofast.store import RAW
from memofast.store.writer import whole


@dataclass(frozen=True)
class Sample:
    """token_ids, word_ids [n] int32, with [CLS] and [SEP]; rows: modality -> [n, width], as stored; streams: name ->
    rows [n, width] and the modality that they were made of; cut: in words, what was left out as too long."""

    token_ids: np.ndarray
    word_ids: np.ndarray
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    streams: Mapping[str, tuple[np.ndarray, str]] = field(default_factory=dict)
    cut: tuple[str, ...] = ()

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Text, visual and speech rows."""
        return len(self.token_ids), *(len(self.rows.get(modality, ())) for modality in FEATURES)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of which there is something, be it a stream: text is more than [CLS]."""
        streamed = {modality for rows, modality in self.streams.values() if len(rows)}
        fewest = dict.fromkeys(FEATURES, 1) | {"text": 2}
        return tuple(m for m, rows in zip(MODALITIES, self.lengths, strict=True) if rows >= fewest[m] or m in streamed)


class SampleList:
    """Samples as the loop of inference takes them; ids: names for messages."""

    def __init__(self, samples: Sequence[Sample], ids: Sequence[str]):
        self.samples, self.ids = samples, ids
        self.lengths = np.array([sample.lengths for sample in samples], np.int32).reshape(-1, 3)

    def pack(self, indices: np.ndarray) -> PackedBatch:
        return pack_samples([self.samples[index] for index in indices])


def text_columns(ids: Sequence[int], words: Sequence[int], cls: int, sep: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and word ids of a sentence between [CLS] and [SEP]; [CLS] alone where there are no words."""
    if not len(ids):
        return np.array([cls], np.int32), np.array([-1], np.int32)
    return np.array([cls, *ids, sep], np.int32), np.array([-1, *words, -1], np.int32)


def stored(rows: np.ndarray, dtype: str, width: int, what: str) -> np.ndarray:
    """Rows as a store keeps them. Raises: `MemofastError`, beginning with `what`, for another width, values that are
    not finite, and of raw rows what are no whole numbers of their type."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise MemofastError(f"{what} must be [rows, {width}], got {list(rows.shape)}; make them by the same extractor")
    if dtype in RAW:
        return whole(rows, dtype, what)
    with np.errstate(over="ignore"):
        rows = rows.astype(dtype)
    if not np.isfinite(rows).all():
        raise MemofastError(f"{what} are not all finite in {dtype}; repair them or leave them out")
    return rows


def pack_samples(samples: Sequence[Sample]) -> PackedBatch:
    """The batch of some samples, in their order; feature rows padded to a multiple of 8 values, in the samples'
    type."""
    lengths = np.array([sample.lengths for sample in samples], np.int32).reshape(-1, 3)
    starts = np.zeros((len(samples) + 1, 4), np.int32)
    np.cumsum(lengths, axis=0, out=starts[1:, :3])
    starts[:, 3] = starts[:, :3].sum(1)
    text, visual, speech, joint = torch.from_numpy(np.ascontiguousarray(starts.T))
    return PackedBatch(
        token_ids=torch.from_numpy(np.concatenate([sample.token_ids for sample in samples])),
        word_ids=torch.from_numpy(np.concatenate([sample.word_ids for sample in samples])),
        text_offsets=text,
        visual_offsets=visual,
        speech_offsets=speech,
        offsets=joint,
        sample_keys=torch.zeros(len(samples), dtype=torch.int64),  # names of random numbers, of which there are none
        visual=_rows(samples, "visual"),
        speech=_rows(samples, "speech"),
        longest=rounded_length(int(lengths.sum(1).max(initial=0))),
        streams=_streams(samples),
    )


def _rows(samples: Sequence[Sample], modality: str) -> torch.Tensor | None:
    present = [rows for sample in samples if (rows := sample.rows.get(modality)) is not None and len(rows)]
    return _padded(present) if present else None


def _padded(rows: Sequence[np.ndarray]) -> torch.Tensor:
    joined = np.concatenate(rows)
    return torch.from_numpy(np.pad(joined, ((0, 0), (0, -joined.shape[1] % 8))))


def _streams(samples: Sequence[Sample]) -> dict[str, StreamRows]:
    """Every stream that a sample has; others have no rows of it."""
    found = {}
    for name, (some, modality) in {n: own for sample in samples for n, own in sample.streams.items()}.items():
        rows = [sample.streams[name][0] if name in sample.streams else some[:0] for sample in samples]
        offsets = np.append(0, np.cumsum([len(own) for own in rows])).astype(np.int32)
        found[name] = StreamRows(_padded(rows), torch.from_numpy(offsets), modality)
    return found

"""Samples that were never in a store, and their batch, equal to what a corpus of them would give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from memofast.data.batch import PackedBatch, rounded_length
from memofast.errors import MemofastError

FEATURES = ("visual", "speech")


@dataclass(frozen=True)
class Sample:
    """token_ids, word_ids [n] int32, with [CLS] and [SEP]; rows: modality -> [n, width], as stored."""

    token_ids: np.ndarray
    word_ids: np.ndarray
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Text, visual and speech rows."""
        return len(self.token_ids), *(len(self.rows.get(modality, ())) for modality in FEATURES)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of which there is something: text is more than [CLS]."""
        text, *features = self.lengths
        return (*(["text"] if text > 1 else []), *(m for m, n in zip(FEATURES, features, strict=True) if n))


def text_columns(ids: Sequence[int], words: Sequence[int], cls: int, sep: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and word ids of a sentence between [CLS] and [SEP]; [CLS] alone where there are no words."""
    if not len(ids):
        return np.array([cls], np.int32), np.array([-1], np.int32)
    return np.array([cls, *ids, sep], np.int32), np.array([-1, *words, -1], np.int32)


def stored(rows: np.ndarray, dtype: str, width: int, what: str) -> np.ndarray:
    """Rows as a store keeps them. Raises: `MemofastError`, beginning with `what`, for another width and values that are not finite."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise MemofastError(f"{what} must be [rows, {width}], got {list(rows.shape)}; make them by the same extractor")
    with np.errstate(over="ignore"):
        rows = rows.astype(dtype)
    if not np.isfinite(rows).all():
        raise MemofastError(f"{what} are not all finite in {dtype}; repair them or leave them out")
    return rows


def pack_samples(samples: Sequence[Sample]) -> PackedBatch:
    """The batch of some samples, in their order; feature rows padded to a multiple of 8 values, in the samples' type."""
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
    )


def _rows(samples: Sequence[Sample], modality: str) -> torch.Tensor | None:
    present = [rows for sample in samples if (rows := sample.rows.get(modality)) is not None and len(rows)]
    if not present:
        return None
    rows = np.concatenate(present)
    return torch.from_numpy(np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))))

"""From records to one `PackedBatch`: a copy per value, from the memory map into recycled memory, in C++ without the GIL."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from memofast.data.batch import PackedBatch, rounded_length
from memofast.store import Store
from memofast.store.memory import TYPE_IDS, allocate

if TYPE_CHECKING:
    from memofast.data.corpus import Split

_COLUMN = {"text": 0, "visual": 1, "speech": 2}  # of lengths
_TARGETS = {
    "text": {"lexicon": torch.int32, "label": torch.int64, "emotions": torch.float32, "value": torch.float32},
    "visual": {"soft_labels": torch.float32},
    "speech": {},
}


def pack(split: "Split", indices: np.ndarray, *, dtype: torch.dtype | None = None, pin: bool = False) -> PackedBatch:
    """Pack samples in the given order.

    Args:
        indices [B] int64 into the split.
        dtype: type of the feature rows, fp16, bf16 or fp32; None keeps the stored type (fp16 as a rule), which is the fastest.
        pin: page-locked memory, for asynchronous copies to a GPU.
    Returns: a batch with targets `label` [B] int64 (-1: unknown), `emotions` [B, classes] float32 (zero: unknown), `value` [B] float32
        (NaN: unknown), `lexicon` [sum T] int32 and `soft_labels` [sum V, classes] float32, as far as the corpus has them.
    Raises: `MemofastError` for a missing id or a corrupt record, naming id and store.
    """
    corpus = split.corpus
    lengths = split.lengths[indices].astype(np.int64)
    starts = np.zeros((len(indices) + 1, 4), np.int64)
    np.cumsum(lengths, axis=0, out=starts[1:, :3])
    starts[:, 3] = starts[:, :3].sum(1)
    columns = {modality: _columns(modality, store, dtype) for modality, store in corpus.stores.items()}
    shapes = {"offsets": ((4, len(indices) + 1), torch.int32), "sample_keys": ((len(indices),), torch.int64)}
    for modality, store in corpus.stores.items():
        rows = int(starts[-1, _COLUMN[modality]])
        for name, (padded, kind) in columns[modality].items():
            shapes[f"{modality}.{name}"] = (_shape(store, name, rows, len(indices), padded), kind)
    tensors = allocate(shapes, pin)
    tensors["offsets"].numpy()[:] = starts.T
    tensors["sample_keys"].numpy()[:] = split.keys[indices]
    for modality, store in corpus.stores.items():
        column = _COLUMN[modality]
        _gather(split, store, indices, lengths[:, column], starts[:-1, column], modality, columns[modality], tensors)
    return _batch(split, indices, tensors)


def _columns(modality: str, store: Store, dtype: torch.dtype | None) -> dict[str, tuple[int, torch.dtype]]:
    """Column name -> (width in the batch, type in the batch)."""
    if modality == "text":
        columns = {"tokens": (1, torch.int32), "words": (1, torch.int32)}
    else:
        stored, width = store.columns["rows"]
        columns = {"rows": ((width + 7) // 8 * 8, dtype or getattr(torch, stored))}
    for name, kind in _TARGETS[modality].items():
        if name in store.columns:
            values = len(store.classes[name]) if name == "emotions" else store.columns[name][1]
            columns[name] = (max(1, values), kind)
    return columns


def _shape(store: Store, name: str, rows: int, samples: int, padded: int) -> tuple[int, ...]:
    if name == "emotions":
        return (samples, padded)
    if store.columns[name][1] == 0:
        return (samples,)
    return (rows, padded) if name in ("rows", "soft_labels") else (rows,)


def _gather(
    split: "Split",
    store: Store,
    indices: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    modality: str,
    columns: dict[str, tuple[int, torch.dtype]],
    tensors: dict[str, Tensor],
) -> None:
    present = np.flatnonzero(rows)
    if len(present) < len(indices):
        indices, rows, starts = indices[present], rows[present], starts[present]
    wanted = [
        (name, padded, TYPE_IDS[kind], tensors[f"{modality}.{name}"].data_ptr())
        for name, (padded, kind) in columns.items()
    ]
    places = split.places[indices, _COLUMN[modality]]
    store.gather(places, np.ascontiguousarray(rows), np.ascontiguousarray(starts), wanted)


def _batch(split: "Split", indices: np.ndarray, tensors: dict[str, Tensor]) -> PackedBatch:
    text, visual, speech, joint = tensors["offsets"]
    names = {
        "label": "text.label",
        "emotions": "text.emotions",
        "value": "text.value",
        "lexicon": "text.lexicon",
        "soft_labels": "visual.soft_labels",
    }
    return PackedBatch(
        token_ids=tensors["text.tokens"],
        word_ids=tensors["text.words"],
        text_offsets=text,
        visual_offsets=visual,
        speech_offsets=speech,
        offsets=joint,
        sample_keys=tensors["sample_keys"],
        visual=tensors.get("visual.rows"),
        speech=tensors.get("speech.rows"),
        targets={name: tensors[column] for name, column in names.items() if column in tensors},
        ids=[split.ids[i] for i in indices.tolist()],
        longest=rounded_length(int(split.lengths[indices].sum(1).max(initial=0))),
    )

"""From records to one `PackedBatch`: a copy per value, from the memory map into recycled memory, in C++ without the
GIL."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from memofast.data.batch import PackedBatch, StreamRows, rounded_length
from memofast.data.conditions import cls_alone
from memofast.data.modality import FEATURES, MODALITIES
from memofast.store import RAW, Store
from memofast.store.memory import TYPE_IDS, allocate
from memofast.store.record import MODALITY_VALUES

TARGETS = {
    "text": {
        "lexicon": torch.int32,
        "part_of_speech": torch.int32,
        "polarity": torch.int32,
        "label": torch.int64,
        "emotions": torch.float32,
        "value": torch.float32,
        **dict.fromkeys(MODALITY_VALUES.values(), torch.float32),
    },
    "visual": {"soft_labels": torch.float32},
    "speech": {},
}


class Source(NamedTuple):
    """Whose records a batch shows. store; places [B] int64: of each sample's record among the store's, -1 for none;
    modality: what a stream is of."""

    store: Store
    places: np.ndarray
    modality: str = ""

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each sample [B] int64."""
        present = self.places >= 0
        lengths = np.zeros(len(self.places), np.int64)
        lengths[present] = self.store.lengths[self.places[present]]
        return lengths


def pack(
    sources: Mapping[str, Source],
    keys: np.ndarray,
    ids: Sequence[str],
    streams: Mapping[str, Source] | None = None,
    *,
    shown: Mapping[str, np.ndarray] | None = None,
    hidden: np.ndarray | None = None,
    dtype: torch.dtype | None = None,
    pin: bool = False,
) -> PackedBatch:
    """Pack samples in the given order.

    Args:
        sources: by modality, `text` always; keys [B] int64 and ids of the samples.
        streams: by name, what is packed beside the modalities.
        shown: by modality [B] int64, the keys of the samples whose rows are shown, where they may be others'; becomes
        targets `visual_of` and `speech_of`.
        hidden: samples [B] bool whose text is [CLS] alone; their labels stay.
        dtype: type of the feature rows, fp16, bf16 or fp32; None keeps the stored type (fp16 as a rule), which is the
        fastest. Raw rows keep theirs.
        pin: page-locked memory, for asynchronous copies to a GPU.
    Returns: a batch with targets `label` [B] int64 (-1: unknown), `emotions` [B, classes] float32 (zero: unknown),
        `value`, `value_text`, `value_visual` and `value_speech` [B] float32 (NaN: unknown), `lexicon`,
        `part_of_speech` and `polarity` [sum T] int32 and `soft_labels` [sum V, classes] float32, as far as the corpus
        has them.
    Raises: `MemofastError` for a missing id or a corrupt record, naming id and store.
    """
    samples, streams, shown = len(keys), streams or {}, shown or {}
    lengths = {name: sources[name].lengths if name in sources else np.zeros(samples, np.int64) for name in MODALITIES}
    starts = np.zeros((samples + 1, len(MODALITIES) + 1), np.int64)
    np.cumsum(np.stack(list(lengths.values()), 1), axis=0, out=starts[1:, :-1])
    starts[:, -1] = starts[:, :-1].sum(1)
    columns = {name: _columns(name, source.store, dtype) for name, source in sources.items()}
    shapes = {"offsets": ((len(MODALITIES) + 1, samples + 1), torch.int32), "sample_keys": ((samples,), torch.int64)}
    for column, name in enumerate(MODALITIES):
        if name in sources:
            rows = int(starts[-1, column])
            for value, (padded, kind) in columns[name].items():
                shapes[f"{name}.{value}"] = (_shape(sources[name].store, value, rows, samples, padded), kind)
    tensors = allocate(shapes, pin)
    tensors["offsets"].numpy()[:] = starts.T
    tensors["sample_keys"].numpy()[:] = keys
    for column, name in enumerate(MODALITIES):
        if name in sources:
            _gather(sources[name], lengths[name], starts[:-1, column], name, columns[name], tensors)
    _check_text(sources["text"], tensors)
    batch = _batch(ids, tensors, rounded_length(int(sum(lengths.values()).max(initial=0))))
    batch.streams = {name: _stream(name, source, dtype, pin) for name, source in streams.items()}
    for name, owners in shown.items():
        batch.targets[f"{name}_of"] = _copied(owners, pin)
    if hidden is not None:
        batch = cls_alone(batch, torch.from_numpy(hidden))
        batch = batch.map(lambda tensor: tensor if tensor.is_pinned() else tensor.pin_memory()) if pin else batch
    return batch


def _check_text(text: Source, tensors: Mapping[str, Tensor]) -> None:
    columns = {
        name: tensors[f"text.{name}"].numpy() for name in ("tokens", *TARGETS["text"]) if f"text.{name}" in tensors
    }
    if text.store.value_fault(columns):
        for place in text.places.tolist():
            text.store.read(text.store.ids[place])  # which names the record


def column(source: Source, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One column of records alone. Returns: values [rows, width] float32, and the first row of each sample [B+1]
    int64."""
    lengths = source.lengths
    starts = np.append(0, lengths.cumsum())
    width = source.store.columns[name][1]
    columns = {name: (width, torch.float32)}
    tensors = allocate({f"only.{name}": ((int(starts[-1]), width), torch.float32)})
    _gather(source, lengths, starts[:-1], "only", columns, tensors)
    return tensors[f"only.{name}"].numpy().copy(), starts


def _columns(modality: str, store: Store, dtype: torch.dtype | None) -> dict[str, tuple[int, torch.dtype]]:
    """Column name -> (width in the batch, type in the batch)."""
    words = {"tokens": (1, torch.int32), "words": (1, torch.int32)}
    columns = words if modality == "text" else _rows(store, dtype)
    for name, kind in TARGETS[modality].items():
        if name in store.columns:
            values = len(store.classes[name]) if name == "emotions" else store.columns[name][1]
            columns[name] = (max(1, values), kind)
    return columns


def _rows(store: Store, dtype: torch.dtype | None) -> dict[str, tuple[int, torch.dtype]]:
    stored, width = store.columns["rows"]
    kept = dtype is None or stored in RAW
    return {"rows": ((width + 7) // 8 * 8, getattr(torch, stored) if kept else dtype)}


def _shape(store: Store, name: str, rows: int, samples: int, padded: int) -> tuple[int, ...]:
    if name == "emotions":
        return (samples, padded)
    if store.columns[name][1] == 0:
        return (samples,)
    return (rows, padded) if name in ("rows", "soft_labels") else (rows,)


def _gather(
    source: Source,
    rows: np.ndarray,
    starts: np.ndarray,
    name: str,
    columns: Mapping[str, tuple[int, torch.dtype]],
    tensors: Mapping[str, Tensor],
) -> None:
    places = source.places
    present = np.flatnonzero(rows)
    if len(present) < len(rows):
        places, rows, starts = places[present], rows[present], starts[present]
    wanted = [
        (value, padded, TYPE_IDS[kind], tensors[f"{name}.{value}"].data_ptr())
        for value, (padded, kind) in columns.items()
    ]
    source.store.gather(places, np.ascontiguousarray(rows), np.ascontiguousarray(starts), wanted)


def _stream(name: str, source: Source, dtype: torch.dtype | None, pin: bool) -> StreamRows:
    lengths = source.lengths
    starts = np.append(0, lengths.cumsum())
    columns = _rows(source.store, dtype)
    shapes = {f"{name}.rows": ((int(starts[-1]), columns["rows"][0]), columns["rows"][1])}
    tensors = allocate({"offsets": ((len(starts),), torch.int32), **shapes}, pin)
    tensors["offsets"].numpy()[:] = starts
    _gather(source, lengths, starts[:-1], name, columns, tensors)
    return StreamRows(tensors[f"{name}.rows"], tensors["offsets"], source.modality)


def _copied(values: np.ndarray, pin: bool) -> Tensor:
    tensor = torch.from_numpy(values.astype(np.int64))
    return tensor.pin_memory() if pin else tensor


def _batch(ids: Sequence[str], tensors: Mapping[str, Tensor], longest: int) -> PackedBatch:
    *offsets, joint = tensors["offsets"]
    return PackedBatch(
        token_ids=tensors["text.tokens"],
        word_ids=tensors["text.words"],
        **{f"{name}_offsets": own for name, own in zip(MODALITIES, offsets, strict=True)},
        offsets=joint,
        sample_keys=tensors["sample_keys"],
        **{name: tensors.get(f"{name}.rows") for name in FEATURES},
        targets={
            value: tensors[f"{name}.{value}"]
            for name, values in TARGETS.items()
            for value in values
            if f"{name}.{value}" in tensors
        },
        ids=list(ids),
        longest=longest,
    )

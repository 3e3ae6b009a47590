"""The last layer's rows of every sample, spooled to disk, so that memory holds one batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data import Corpus, PackedBatch, Split
from memofast.data.conditions import keep
from memofast.data.modality import LETTERS, MODALITIES
from memofast.files import reserve
from memofast.inference.loop import RowResults, run_over
from memofast.inference.split_predictions import truth_of
from memofast.model.family import Encoder
from memofast.objectives.label_space import VALUE, LabelSpace


@dataclass(frozen=True, eq=False)
class HiddenStates:
    """Hidden states of n samples, in the order of their splits.

    splits [n]: name of each sample's. rows: by modality a memory map [rows, C] float32, of text without [CLS] and
    [SEP]; offsets: by modality [n+1] int64, first row of each sample. pooled: memory map [n, C] float32. labels [n]
    int64, -1 where unknown, of `classes`; values [n] float32, None where the corpus has none.
    """

    corpus: Corpus
    ids: list[str]
    splits: list[str]
    rows: Mapping[str, np.ndarray]
    offsets: Mapping[str, np.ndarray]
    pooled: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    values: np.ndarray | None

    def of(self, modality: str, sample: int) -> np.ndarray:
        """Rows [rows, C] of one sample."""
        begin, end = self.offsets[modality][sample : sample + 2]
        return self.rows[modality][begin:end]

    def text(self, sample: int) -> tuple[str, np.ndarray]:
        """A sample's sentence, and its word pieces [T] int32 with [CLS] and [SEP]."""
        record = self.corpus.stores["text"].read(self.ids[sample])
        return bytes(record.get("utf8", b"")).decode(), record["tokens"]


def compute_hidden_states(
    model: Encoder, splits: Sequence[Split], condition: str, scratch: Path, device: str = "cpu"
) -> HiddenStates:
    """Hidden states of splits of one corpus.

    Args: condition: modalities shown. scratch: an empty folder that the memory maps are kept in.
    Raises: `MemofastError` where they are not finite, naming samples.
    """
    model = model.to(device).eval()
    counts = np.concatenate([_row_counts(split, condition) for split in splits])
    offsets = {name: np.append(0, counts[:, n].cumsum()) for n, name in enumerate(MODALITIES)}
    width = model.width
    rows = {name: _map(scratch / f"{name}.npy", int(own[-1]), width) for name, own in offsets.items()}
    pooled = _map(scratch / "pooled.npy", len(counts), width)
    first, corpus = 0, splits[0].corpus
    for split in splits:
        for results in run_over(
            split, lambda batch: _encoded(model, batch), device, "hidden states", f" of corpus {corpus.path}",
            shown=lambda batch: keep(batch, condition),
        ):  # fmt: skip
            places = first + results.indices
            pooled[places] = results.found["pooled"]
            for name, own in offsets.items():
                rows[name][_places(own, places)] = results.found[name]
        first += len(split)
    labels, classes = _labels(splits)
    return HiddenStates(
        corpus, [id for split in splits for id in split.ids], [split.name for split in splits for _ in split.ids],
        rows, offsets, pooled, labels, classes, _values(splits),
    )  # fmt: skip


def _row_counts(split: Split, condition: str) -> np.ndarray:
    """Rows [n, 3] that are kept of each sample: of text all but [CLS] and [SEP], of what is not shown none."""
    shown = np.array([letter in condition for letter in LETTERS])
    return np.maximum(split.lengths.astype(np.int64) - [2, 0, 0], 0) * shown


def _map(path: Path, rows: int, width: int) -> np.ndarray:
    made = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    reserve(path)
    return made


def _encoded(model: Encoder, batch: PackedBatch) -> dict[str, Tensor | RowResults]:
    """Rows by modality, sample after sample, and pooled vectors [B, C].

    A sample's rows lie together in the joint sequence, text first, so that a modality's rows are found by the joint
    offsets, not by a table's columns.
    """
    output = model(batch)
    found: dict[str, Tensor | RowResults] = {"pooled": output.pooled}
    for name in MODALITIES:
        own = getattr(batch, f"{name}_offsets").to(torch.int64)
        chosen = torch.arange(int(own[-1]), device=own.device)
        if name == "text":
            chosen = chosen[_inside(own)]
            own = F.pad((own.diff() - 2).clamp(min=0).cumsum(0), (1, 0))
        found[name] = RowResults(output.hidden[batch.joint_rows(name, chosen)], own)
    return found


def _inside(offsets: Tensor) -> Tensor:
    """Which text rows are neither a sample's first, [CLS], nor its last, [SEP]: [rows] bool."""
    inside = torch.ones(int(offsets[-1]), dtype=torch.bool, device=offsets.device)
    inside[offsets[:-1]] = False
    inside[offsets[1:] - 1] = False
    return inside


def _places(offsets: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Where the rows of these samples stand among those of all."""
    begins, lengths = offsets[samples], offsets[samples + 1] - offsets[samples]
    within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    return np.repeat(begins, lengths) + within


def _labels(splits: Sequence[Split]) -> tuple[np.ndarray, tuple[str, ...]]:
    corpus = splits[0].corpus
    if not (corpus.classes.get("emotions") or corpus.classes.get("label")):
        return np.full(sum(map(len, splits)), -1), ()
    target = LabelSpace.of_corpus(corpus)
    return np.concatenate([truth_of(split, target) for split in splits]), target.classes


def _values(splits: Sequence[Split]) -> np.ndarray | None:
    if VALUE not in splits[0].corpus.targets:
        return None
    target = LabelSpace("regression", (VALUE,))
    return np.concatenate([truth_of(split, target) for split in splits])

"""What is known of samples before any of their records is packed: all that decides which objectives can serve them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from memofast.data.batch import PackedBatch
from memofast.data.modality import MODALITIES


@dataclass(eq=False)
class Facts:
    """lengths [n, 3] int32: text (with [CLS] and [SEP]), visual and speech rows. targets: names of what is known of the
    corpus, as in `PackedBatch.targets`. streams: by name rows of each sample [n].

    labelled: gives `all_faces_labelled`, only where it is asked for: it reads every soft label. read: gives a target of
    each sample, `label` [n] or `emotions` [n, classes], as packed; only where it is asked for.
    """

    lengths: np.ndarray
    targets: frozenset[str]
    labelled: Callable[[], np.ndarray]
    streams: Mapping[str, np.ndarray] = field(default_factory=dict)
    read: Callable[[str], np.ndarray] | None = None
    _labelled: np.ndarray | None = None
    _values: dict[str, np.ndarray] = field(default_factory=dict)

    def rows(self, modality: str) -> np.ndarray:
        """Rows of each sample [n] int32 of one modality."""
        return self.lengths[:, MODALITIES.index(modality)]

    @property
    def all_faces_labelled(self) -> np.ndarray:
        """Samples whose every face has a soft label, none of which is all zero: [n] bool."""
        if self._labelled is None:
            self._labelled = self.labelled()
        return self._labelled

    def target(self, name: str) -> np.ndarray:
        """What is known of each sample, read once: `label` [n] int64, -1 where unknown, or `emotions` [n, classes]
        float32, zero where unknown."""
        if name not in self._values:
            self._values[name] = self.read(name)
        return self._values[name]

    def classes_of(self, name: str) -> np.ndarray:
        """The likeliest class of each sample [n] int64 by its `label` or its `emotions`; -1 where unknown, as in a
        corpus without them."""
        if name not in self.targets:
            return np.full(len(self.lengths), -1)
        values = self.target(name)
        return values if values.ndim == 1 else np.where(values.max(1) > 0, values.argmax(1), -1)

    @classmethod
    def of_batch(cls, batch: PackedBatch) -> Facts:
        """The facts of samples that were packed already; the same as before."""
        lengths = torch.stack([batch.offsets_of(modality).diff() for modality in MODALITIES], 1).cpu().numpy()

        def labelled() -> np.ndarray:
            if batch.visual is None or "soft_labels" not in batch.targets:
                return np.zeros(batch.samples, bool)
            return all_labelled(batch.targets["soft_labels"].cpu().numpy(), batch.visual_offsets.cpu().numpy())

        streams = {name: stream.offsets.diff().cpu().numpy() for name, stream in batch.streams.items()}
        return cls(lengths, frozenset(batch.targets), labelled, streams, lambda name: batch.targets[name].cpu().numpy())


def all_labelled(labels: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Which samples have no face whose label is all zero: [B] bool. labels [rows, classes]; offsets [B+1]."""
    unlabelled = labels.astype(np.float32).sum(-1) <= 0
    before = np.append(0, unlabelled.cumsum())
    return before[offsets[1:]] == before[offsets[:-1]]

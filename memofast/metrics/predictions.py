"""What a model said of samples, beside what is true: kept with every result, so that any metric can be computed
later."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.npz import npz_arrays

KINDS = ("single", "multi", "regression")


def is_known(kind: str, truth: np.ndarray) -> np.ndarray:
    """Of which samples the truth of `Predictions` is known [n] bool."""
    return truth >= 0 if kind == "single" else np.isfinite(truth).reshape(len(truth), -1).all(1)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of n samples, beside what is true.

    kind: `single`, one class of several; `multi`, any number of them; `regression`, a value. ids [n]. truth: [n] int64
    class, -1 where unknown; `multi`: [n, classes] float32 of 0 and 1, `regression`: [n] float32, NaN where unknown.
    scores: probabilities [n, classes] float32 (`single`: of sum 1); `regression`: values [n] float32. classes: names in
    order, empty for `regression`.
    """

    kind: str
    ids: tuple[str, ...]
    truth: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        if {self.truth.dtype.kind, self.scores.dtype.kind} - set("biuf"):
            raise ValueError("truth and scores are not numbers")
        n, classes = len(self.ids), len(self.classes)
        scores = (n,) if self.kind == "regression" else (n, classes)
        truth = (n, classes) if self.kind == "multi" else (n,)
        if self.kind not in KINDS or self.scores.shape != scores or self.truth.shape != truth:
            raise ValueError(
                f"{self.kind} predictions of {n} samples have truth {truth} and scores {scores}, not "
                f"{self.truth.shape}, {self.scores.shape}"
            )

    @property
    def known(self) -> Predictions:
        """Those whose truth is known."""
        return self.at(np.flatnonzero(is_known(self.kind, self.truth)))

    @property
    def named(self) -> np.ndarray:
        """The class named for each sample [n] int64; of `multi` [n, classes] int64, 1 where at least one half."""
        return self.scores.argmax(1) if self.kind == "single" else (self.scores >= 0.5).astype(np.int64)

    def at(self, chosen: np.ndarray) -> Predictions:
        """The samples at these indices, in their order."""
        ids = tuple(self.ids[i] for i in chosen)
        return Predictions(self.kind, ids, self.truth[chosen], self.scores[chosen], self.classes)

    def save(self, path: Path) -> None:
        """Write one npz file; nothing half-written stands under its name."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, kind=np.array(self.kind), ids=np.array(self.ids, dtype=str),
            classes=np.array(self.classes, dtype=str), truth=self.truth, scores=self.scores,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Raises `MemofastError` where the file is missing or holds something else."""
        try:
            data = npz_arrays(path, ("kind", "ids", "classes", "truth", "scores"))
            ids, classes = tuple(map(str, data["ids"])), tuple(map(str, data["classes"]))
            return cls(str(data["kind"]), ids, data["truth"], data["scores"], classes)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise MemofastError(f"{path} holds no predictions ({error}); run the evaluation again") from None

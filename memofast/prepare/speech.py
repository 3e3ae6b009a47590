"""Speech rows: which extractor `--speech` names, means of its rows, and when each row is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from memofast.errors import MemofastError
from memofast.prepare.choices import Kind, parse_choice

SHORTEST = 800  # samples; less than 50 ms has no row


class SpeechRows(Protocol):
    """Called with sound [samples] float32 at 16 kHz; gives rows [n, width] float32, row i made of `window` seconds from i * `hop` seconds on.

    dtype: in which a store keeps them.
    """

    name: str
    width: int
    hop: float
    window: float
    fingerprint: str
    normalisation: str
    dtype: str

    def __call__(self, sound: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class SpeechChoice:
    """kind: a key of `KINDS` or none; path: a model's folder; layer: of a model, `last`, `conv` or a number from 1; mean: rows averaged into one.

    normalise: openSMILE's descriptors z-normed within the `clip`, or as they are (`none`).
    """

    kind: str
    path: Path | None
    mean: int
    layer: str = "last"
    normalise: str = "clip"

    def __str__(self) -> str:
        if self.path:
            return f"{self.kind} layer {self.layer}"
        return self.kind + _AS_THEY_ARE if self.normalise == "none" else self.kind

    @classmethod
    def described(cls, text: str, path: Path | None, mean: int) -> "SpeechChoice":
        """The choice that `str` describes, with its folder where it has one."""
        kind, _, layer = text.removesuffix(_AS_THEY_ARE).partition(" layer ")
        normalise = "none" if text.endswith(_AS_THEY_ARE) else "clip"
        return cls(kind, path if layer else None, mean, layer or "last", normalise)


_AS_THEY_ARE = " as they are"
_OPENSMILE = Kind(settings={"normalise": "clip or none"})
_MODEL = Kind("FOLDER", {"layer": "last, conv or a number from 1"})
KINDS = {
    "logmel": Kind(),
    "compare": _OPENSMILE,
    "egemaps": _OPENSMILE,
    "wav2vec2": _MODEL,
    "hubert": _MODEL,
    "wavlm": _MODEL,
    "data2vec": _MODEL,
    "none": Kind(),
}
_DEFAULT_MEAN = {"logmel": 6, "compare": 5, "egemaps": 5, "none": 1}
_DEFAULT_MEAN_OF_MODELS = 3  # 60 ms; this and the 50 ms of ComParE as in MEmoBERT


def parse_speech(text: str, mean: int | None) -> SpeechChoice:
    """The choice behind `--speech`; raises MemofastError for an unknown one."""
    kind, path, settings = parse_choice(text, "--speech", KINDS)
    layer = settings.get("layer", "last")
    if layer not in {"last", "conv"} and not (layer.isascii() and layer.isdigit() and int(layer) > 0):
        raise MemofastError(f"--speech {kind}: layer is last, conv or a number from 1, not {layer!r}")
    if (normalise := settings.get("normalise", "clip")) not in {"clip", "none"}:
        raise MemofastError(f"--speech {kind}: normalise is clip or none, not {normalise!r}")
    return SpeechChoice(kind, path, mean or _DEFAULT_MEAN.get(kind, _DEFAULT_MEAN_OF_MODELS), layer, normalise)


def open_speech(choice: SpeechChoice, device: str = "cpu") -> SpeechRows | None:
    """The extractor of a choice, a model on `device`; raises MemofastError naming what is missing."""
    if choice.kind == "none":
        return None
    if choice.kind == "logmel":
        from memofast.prepare.logmel import LogMel

        return LogMel()
    if choice.path is None:
        from memofast.prepare.opensmile_rows import Compare, EGemaps

        return (Compare if choice.kind == "compare" else EGemaps)(within_clip=choice.normalise == "clip")
    from memofast.prepare.pretrained import open_device
    from memofast.prepare.speech_models import SpeechModel

    return SpeechModel(choice.kind, choice.path, choice.layer, open_device(device))


def mean_rows(rows: np.ndarray, k: int) -> np.ndarray:
    """Means of k consecutive rows, the last group as long as it is: [n, width] -> [ceil(n / k), width]."""
    if k == 1 or len(rows) == 0:
        return rows
    starts = np.arange(0, len(rows), k)
    counts = np.diff(np.append(starts, len(rows)))
    return (np.add.reduceat(rows, starts, axis=0, dtype=np.float64) / counts[:, None]).astype(np.float32)


def row_times(count: int, k: int, hop: float, window: float) -> np.ndarray:
    """Middles of what the means of k of `count` rows cover, in seconds from the sound's start: [ceil(count / k)] float32."""
    first = np.arange(0, count, k)
    last = np.minimum(first + k, count) - 1
    return ((first + last) * (hop / 2) + window / 2).astype(np.float32)

"""Speech rows: which extractor `--speech` names, what is made of its frames, and when each row is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from memofast.errors import MemofastError
from memofast.prepare.choices import Kind, parse_choice
from memofast.prepare.media.excerpts import SAMPLE_RATE
from memofast.prepare.speech.raw import PICTURES, RATES, rate_of
from memofast.prepare.speech.rows import functionals, mean_rows, parts_of, row_times, stacked_rows


class SpeechExtractor(Protocol):
    """Called with sound [samples] float32 at 16 kHz; gives rows [n, width] float32, raw ones int16, row i made of
    `window` seconds from i * `hop` seconds on.

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
    """kind: a key of `KINDS` or none; path: a model's folder; layer: of a model, `last`, `conv` or a number from 1, or
    several side by side, as `last+conv`.

    mean: frames averaged into a row. parts: not empty for `functionals` in place of means; stack: above 1, so many
    frames side by side in their place. normalise: openSMILE's descriptors z-normed within the `clip`, or as they are
    (`none`). rate: of raw samples.
    """

    kind: str
    path: Path | None
    mean: int
    layer: str = "last"
    normalise: str = "clip"
    parts: tuple[int, ...] = ()
    stack: int = 1
    rate: int = SAMPLE_RATE

    @property
    def summary(self) -> str:
        """What a row is made of."""
        if self.kind == "raw":
            return "16 bit samples" + ("" if self.rate == SAMPLE_RATE else f" at {self.rate} Hz")
        if self.stack > 1:
            return f"stack of {self.stack}"
        return f"functionals of {functionals_name(self.parts)}" if self.parts else f"mean of {self.mean}"

    def width(self, frame: int) -> int:
        """Width of a row, given that of a frame."""
        return 2 * frame if self.parts else self.stack * frame

    def rows(self, frames: np.ndarray) -> np.ndarray:
        """Rows [m, width] of frames [n, frame width]."""
        if self.stack > 1:
            return stacked_rows(frames, self.stack)
        return functionals(frames, self.parts) if self.parts else mean_rows(frames, self.mean)

    def times(self, frames: int, hop: float, window: float) -> np.ndarray:
        """Middles of what the rows of so many frames cover, in seconds from the sound's start: [m] float32."""
        if not self.parts:
            return row_times(frames, max(self.mean, self.stack), hop, window)  # of which one is 1
        middles = [(first + last - 1) * (hop / 2) + window / 2 for first, last in parts_of(frames, self.parts)]
        return np.array(middles, np.float32)

    def __str__(self) -> str:
        if self.path:
            return f"{self.kind} layer {self.layer}"
        stack = f" stack {self.stack}" if self.stack > 1 else ""
        if self.rate != SAMPLE_RATE:
            return f"{self.kind} rate {self.rate}"
        return self.kind + (_AS_THEY_ARE if self.normalise == "none" else "") + stack

    @classmethod
    def described(cls, text: str, path: Path | None, mean: int, parts: tuple[int, ...] = ()) -> "SpeechChoice":
        """The choice that `str` describes, with its folder where it has one."""
        if raw := RAW_RATE.fullmatch(text):
            return cls("raw", None, mean, rate=int(raw[1]))
        stacked = STACKED.search(text)
        text = STACKED.sub("", text)
        kind, _, layer = text.removesuffix(_AS_THEY_ARE).partition(" layer ")
        normalise = "none" if text.endswith(_AS_THEY_ARE) else "clip"
        return cls(
            kind, path if layer else None, mean, layer or "last", normalise, parts, int(stacked[1]) if stacked else 1
        )


_AS_THEY_ARE = " as they are"
STACKED = re.compile(r" stack ([2-9]|[1-9][0-9]|100)$")  # how many frames, at the end of a choice in words
RAW_RATE = re.compile(r"raw rate ([0-9]{3,6})")
_STACK = "2 to 100"
_OPENSMILE = Kind(settings={"normalise": "clip or none", "stack": _STACK})
_LAYERS = "last, conv or a number from 1, or several as last+conv"
_MODEL = Kind("FOLDER", {"layer": _LAYERS})
KINDS = {
    "logmel": Kind(settings={"stack": _STACK}),
    "compare": _OPENSMILE,
    "egemaps": _OPENSMILE,
    "compare+egemaps": _OPENSMILE,
    "wav2vec2": _MODEL,
    "hubert": _MODEL,
    "wavlm": _MODEL,
    "data2vec": _MODEL,
    "raw": Kind(settings={"rate": f"{RATES[0]} to {RATES[1]} Hz, a multiple of {PICTURES}"}),
    "none": Kind(),
}
_DEFAULT_MEAN = {"logmel": 6, "compare": 5, "egemaps": 5, "compare+egemaps": 5, "raw": 1, "none": 1}
_DEFAULT_MEAN_OF_MODELS = 3  # 60 ms; this and the 50 ms of ComParE as in MEmoBERT


def parse_speech(text: str, mean: int | None, parts: str | None = None) -> SpeechChoice:
    """The choice behind `--speech`, `--speech-mean` and `--speech-functionals`; raises MemofastError for an unknown
    one."""
    kind, path, settings = parse_choice(text, "--speech", KINDS)
    layer = settings.get("layer", "last")
    layers = layer.split("+")
    if len(set(layers)) < len(layers) or not all(re.fullmatch("last|conv|[1-9][0-9]{0,3}", one) for one in layers):
        raise MemofastError(f"--speech {kind}: layer is {_LAYERS}, not {layer!r}")
    if (normalise := settings.get("normalise", "clip")) not in {"clip", "none"}:
        raise MemofastError(f"--speech {kind}: normalise is clip or none, not {normalise!r}")
    given = "--speech-mean" if mean else "--speech-functionals"
    if kind == "raw" and (mean or parts is not None):
        raise MemofastError(f"--speech raw keeps the samples themselves, a row for 20 ms of them; leave {given} out")
    if kind == "raw" and "rate" in settings:
        if (rate := rate_of(settings["rate"])) is None:
            raise MemofastError(f"--speech raw: rate is {KINDS['raw'].settings['rate']}, not {settings['rate']!r}")
        return SpeechChoice(kind, None, 1, rate=rate)
    if (stack := settings.get("stack")) is not None:
        if not STACKED.fullmatch(f" stack {stack}"):
            raise MemofastError(f"--speech {kind}: stack is {_STACK}, not {stack!r}")
        if mean or parts is not None:
            raise MemofastError(
                f"--speech {kind},stack={stack} puts frames side by side in a row; leave {given} out, or stack"
            )
        return SpeechChoice(kind, path, 1, layer, normalise, stack=int(stack))
    if parts is None:
        return SpeechChoice(kind, path, mean or _DEFAULT_MEAN.get(kind, _DEFAULT_MEAN_OF_MODELS), layer, normalise)
    if mean:
        raise MemofastError(
            "rows are means of frames or functionals of them: give --speech-mean or --speech-functionals"
        )
    numbers = parse_functionals(parts)
    if KINDS[kind] is _OPENSMILE and normalise == "clip" and 1 in numbers:
        raise MemofastError(
            f"--speech-functionals {parts}: z-normed within the clip, descriptors have mean 0 and deviation 1 over "
            f"all of it; give --speech {kind},normalise=none"
        )
    return SpeechChoice(kind, path, 1, layer, normalise, numbers)


def parse_functionals(text: str) -> tuple[int, ...]:
    """`1+2+4` as numbers; raises MemofastError for anything else."""
    if not re.fullmatch(r"[1-9]\d{0,2}(\+[1-9]\d{0,2})*", text):
        raise MemofastError(
            f"--speech-functionals {text!r}: give how many parts an utterance is divided into, as 1+2+4 for itself, "
            "halves and quarters"
        )
    return tuple(map(int, text.split("+")))


def functionals_name(parts: Sequence[int]) -> str:
    return "+".join(map(str, parts))


def open_speech(choice: SpeechChoice, device: str = "cpu") -> SpeechExtractor | None:
    """The extractor of a choice, a model on `device`; raises MemofastError naming what is missing."""
    if choice.kind == "none":
        return None
    if choice.kind == "logmel":
        from memofast.prepare.speech.logmel import LogMel

        return LogMel()
    if choice.kind == "raw":
        from memofast.prepare.speech.raw import RawSpeech

        return RawSpeech(choice.rate)
    if choice.path is None:
        from memofast.prepare.speech.opensmile_rows import OPENSMILE_ROWS

        return OPENSMILE_ROWS[choice.kind](within_clip=choice.normalise == "clip")
    from memofast.devices import open_device
    from memofast.prepare.speech.models import SpeechModel

    return SpeechModel(choice.kind, choice.path, choice.layer, open_device(device))

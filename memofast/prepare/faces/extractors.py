"""Face rows: which extractor `--face` names, and what it gives for the faces of one person."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from memofast.devices import open_device
from memofast.errors import MemofastError
from memofast.model.face_networks.densenet import LAYER_WIDTHS
from memofast.model.face_networks.network import CROPS
from memofast.prepare.choices import Kind, parse_choice
from memofast.prepare.faces.denseface import DenseFace
from memofast.prepare.faces.detection import CROP, EYE_DISTANCE, EYE_HEIGHT, Face
from memofast.prepare.faces.whole_frames import SIDES, WholeFrames

SQUARES = 4096
_LAYERS = "last, trans1, trans2, or several as trans1+last"
_ROWS = ("pooled", "cls", "mean")
_SIDES = " or ".join(map(str, CROPS))
KINDS = {
    "denseface": Kind("FILE", {"layer": _LAYERS}),
    "model": Kind("FOLDER", {"row": "pooled, cls or mean", "labels": "yes or no"}),
    "raw": Kind(settings={"side": _SIDES, "labels": "FILE of a DenseFace"}),
    "frames": Kind(settings={"side": f"{SIDES[0]} to {SIDES[1]}, a multiple of 4"}),
    "none": Kind(),
}
FRAMES = re.compile(r"frames side ([1-9][0-9]{1,2})")  # a choice of whole pictures in words
RAW = re.compile(rf"raw side ({'|'.join(map(str, CROPS))})(, labels denseface)?")  # a choice of raw faces in words


class FaceExtractor(Protocol):
    """Called with the faces of one clip; gives rows [n, width] and soft labels [n, classes], float32, None where there
    are no classes; of raw faces the rows are pixels, uint8.

    dtype: in which a store keeps the rows. colour: whether it looks at `Face.colour`. side: of the grey crops that it
    looks at, in `Face.fine` where it is not 64. labeller: what gave the soft labels, where something else made the
    rows: its name and fingerprint.
    """

    name: str
    width: int
    classes: tuple[str, ...]
    fingerprint: str
    normalisation: str
    dtype: str
    colour: bool
    side: int
    labeller: Mapping[str, str]

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, np.ndarray | None]: ...


@dataclass(frozen=True)
class FaceChoice:
    """kind: `denseface`, `model` (of transformers), `raw` (the crops themselves), `frames` (whole pictures, in colour),
    `pixels` (sums for their mean and standard deviation) or `crops` (faces alone, no rows); path: its file or folder;
    of `raw` a DenseFace for soft labels, if any.

    layers, pixels: see `DenseFace`. row, labels: see `VisionModel`. side: of raw crops and whole pictures.
    """

    kind: str
    path: Path | None = None
    layers: tuple[str, ...] = ("last",)
    pixels: tuple[float, float] | None = None
    row: str | None = None
    labels: bool = True
    side: int = CROP

    def __str__(self) -> str:
        if self.kind == "denseface":
            return f"denseface layer {'+'.join(self.layers)}"
        if self.kind == "frames":
            return f"frames side {self.side}"
        if self.kind == "raw":
            return f"raw side {self.side}{', labels denseface' if self.path else ''}"
        return f"{self.kind} row {self.row or 'default'}, labels {'yes' if self.labels else 'no'}"

    @classmethod
    def described(cls, text: str, path: Path | None, pixels: tuple[float, float] | None = None) -> "FaceChoice":
        """The choice that `str` describes, with its file or folder; of raw faces without one, without soft labels."""
        if frames := FRAMES.fullmatch(text):
            return cls("frames", side=int(frames[1]))
        if raw := RAW.fullmatch(text):
            return cls("raw", path if raw[2] else None, side=int(raw[1]))
        kind, _, rest = text.partition(" ")
        if kind == "denseface":
            return cls(kind, path, tuple(rest.removeprefix("layer ").split("+")), pixels)
        row, _, labels = rest.removeprefix("row ").partition(", labels ")
        return cls(kind, path, row=None if row == "default" else row, labels=labels == "yes")


def parse_face(text: str) -> FaceChoice | None:
    """The choice behind `--face`, None for `none`; raises MemofastError for an unknown one."""
    kind, path, settings = parse_choice(text, "--face", KINDS)
    if kind == "none":
        return None
    layers = tuple(settings.get("layer", "last").split("+"))
    if len(set(layers)) < len(layers) or not set(layers) <= set(LAYER_WIDTHS):
        raise MemofastError(f"--face denseface: layer is {_LAYERS}, not {settings['layer']!r}")
    if kind == "frames":
        return FaceChoice(kind, side=_side_of_frames(settings.get("side", "224")))
    if kind == "raw":
        if (side := settings.get("side", str(CROP))) not in map(str, CROPS):
            raise MemofastError(f"--face raw: side is {_SIDES}, not {side!r}")
        if (labels := settings.get("labels")) == "":
            raise MemofastError("--face raw: labels is a DenseFace file, and empty; name one, or leave labels out")
        return FaceChoice(kind, Path(labels) if labels else None, side=int(side))
    row, labels = settings.get("row"), settings.get("labels", "yes")
    if row not in {None, *_ROWS}:
        raise MemofastError(f"--face model: row is {', '.join(_ROWS)}, not {row!r}")
    if labels not in {"yes", "no"}:
        raise MemofastError(f"--face model: labels is yes or no, not {labels!r}")
    return FaceChoice(kind, path, layers, row=row, labels=labels == "yes")


def _side_of_frames(text: str) -> int:
    side = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 0
    if not SIDES[0] <= side <= SIDES[1] or side % 4:
        raise MemofastError(f"--face frames: side is {KINDS['frames'].settings['side']}, not {text!r}")
    return side


def open_face(choice: FaceChoice, device: str = "cpu") -> FaceExtractor | WholeFrames:
    """The extractor of a choice, on `device`; raises MemofastError naming what is missing."""
    if choice.kind == "pixels":
        return PixelSums()
    if choice.kind == "crops":
        return NoRows()
    if choice.kind == "denseface":
        return DenseFaceExtractor(choice, device)
    if choice.kind == "raw":
        return RawFaces(choice, device)
    if choice.kind == "frames":
        return WholeFrames(choice.side)
    from memofast.prepare.faces.vision_model import VisionModel

    return VisionModel(choice.path, choice.row, choice.labels, open_device(device))


class DenseFaceExtractor:
    """Rows and soft labels of a DenseFace."""

    dtype, colour, side, labeller = "float16", False, CROP, {}

    def __init__(self, choice: FaceChoice, device: str):
        self._net = DenseFace(choice.path, layers=choice.layers, pixels=choice.pixels, device=open_device(device))
        self.width, self.classes, self.fingerprint = self._net.width, self._net.meta.classes, self._net.fingerprint
        self.name = "denseface" if choice.layers == ("last",) else f"denseface layer {'+'.join(choice.layers)}"
        whose = ", of this corpus" if choice.pixels else ""
        self.normalisation = f"pixels (x - {self._net.mean:.4f}) / {self._net.std:.4f}{whose}"

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, np.ndarray]:
        return self._net(np.stack([face.crop for face in faces]))


class RawFaces:
    """The crops themselves as rows, [n, side * side] uint8 grey, for a network that is trained along; soft labels of a
    DenseFace where the choice names one."""

    dtype, normalisation, colour = "uint8", "none", False

    def __init__(self, choice: FaceChoice, device: str):
        self.side, self.width, self.name = choice.side, choice.side**2, f"raw side {choice.side}"
        self.fingerprint = f"raw-1-eyes-{EYE_HEIGHT}-{EYE_DISTANCE}-side-{choice.side}"
        self._labels = DenseFaceExtractor(FaceChoice("denseface", choice.path), device) if choice.path else None
        self.classes = self._labels.classes if self._labels else ()
        self.labeller = {"name": "denseface", "fingerprint": self._labels.fingerprint} if self._labels else {}

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, np.ndarray | None]:
        crops = np.stack([face.crop if self.side == CROP else face.fine for face in faces])
        return crops.reshape(len(faces), -1), self._labels(faces)[1] if self._labels else None


class NoRows:
    """Faces to be looked at: rows of no columns."""

    name, width, classes, colour, side, labeller = "crops", 0, (), False, CROP, {}
    fingerprint, normalisation, dtype = "crops", "none", "float16"

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, None]:
        return np.empty((len(faces), 0), np.float32), None


class PixelSums:
    """Per face the sum of its crop's pixels, and of their squares the quotient by 4096 and the remainder: whole numbers
    that float32 holds, so that they add up to the same in any order."""

    name, width, classes, colour, side, labeller = "pixels", 3, (), False, CROP, {}
    fingerprint, normalisation, dtype = "pixels-1", "none", "float32"

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, None]:
        crops = np.stack([face.crop for face in faces]).astype(np.int64).reshape(len(faces), -1)
        squares = (crops * crops).sum(1)
        return np.column_stack([crops.sum(1), squares // SQUARES, squares % SQUARES]).astype(np.float32), None

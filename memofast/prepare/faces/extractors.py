"""Face rows: which extractor `--face` names, and what it gives for the faces of one person."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from memofast.devices import open_device
from memofast.errors import MemofastError
from memofast.model.face_networks.densenet import LAYER_WIDTHS
from memofast.prepare.choices import Kind, parse_choice
from memofast.prepare.faces.denseface import DenseFace
from memofast.prepare.faces.detection import Face

SQUARES = 4096
_LAYERS = "last, trans1, trans2, or several as trans1+last"
_ROWS = ("pooled", "cls", "mean")
KINDS = {
    "denseface": Kind("FILE", {"layer": _LAYERS}),
    "model": Kind("FOLDER", {"row": "pooled, cls or mean", "labels": "yes or no"}),
    "none": Kind(),
}


class FaceExtractor(Protocol):
    """Called with the faces of one clip; gives rows [n, width] and soft labels [n, classes], float32, None where there
    are no classes.

    colour: whether it looks at `Face.colour`.
    """

    name: str
    width: int
    classes: tuple[str, ...]
    fingerprint: str
    normalisation: str
    colour: bool

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, np.ndarray | None]: ...


@dataclass(frozen=True)
class FaceChoice:
    """kind: `denseface`, `model` (of transformers) `pixels` (sums for their mean and standard deviation) or `crops`
    (faces alone, no rows); path: its file or folder.

    layers, pixels: see `DenseFace`. row, labels: see `VisionModel`.
    """

    kind: str
    path: Path | None = None
    layers: tuple[str, ...] = ("last",)
    pixels: tuple[float, float] | None = None
    row: str | None = None
    labels: bool = True

    def __str__(self) -> str:
        if self.kind == "denseface":
            return f"denseface layer {'+'.join(self.layers)}"
        return f"{self.kind} row {self.row or 'default'}, labels {'yes' if self.labels else 'no'}"

    @classmethod
    def described(cls, text: str, path: Path, pixels: tuple[float, float] | None = None) -> "FaceChoice":
        """The choice that `str` describes, with its file or folder."""
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
    row, labels = settings.get("row"), settings.get("labels", "yes")
    if row not in {None, *_ROWS}:
        raise MemofastError(f"--face model: row is {', '.join(_ROWS)}, not {row!r}")
    if labels not in {"yes", "no"}:
        raise MemofastError(f"--face model: labels is yes or no, not {labels!r}")
    return FaceChoice(kind, path, layers, row=row, labels=labels == "yes")


def open_face(choice: FaceChoice, device: str = "cpu") -> FaceExtractor:
    """The extractor of a choice, on `device`; raises MemofastError naming what is missing."""
    if choice.kind == "pixels":
        return PixelSums()
    if choice.kind == "crops":
        return NoRows()
    if choice.kind == "denseface":
        return DenseFaceExtractor(choice, device)
    from memofast.prepare.faces.vision_model import VisionModel

    return VisionModel(choice.path, choice.row, choice.labels, open_device(device))


class DenseFaceExtractor:
    """Rows and soft labels of a DenseFace."""

    colour = False

    def __init__(self, choice: FaceChoice, device: str):
        self._net = DenseFace(choice.path, layers=choice.layers, pixels=choice.pixels, device=open_device(device))
        self.width, self.classes, self.fingerprint = self._net.width, self._net.meta.classes, self._net.fingerprint
        self.name = "denseface" if choice.layers == ("last",) else f"denseface layer {'+'.join(choice.layers)}"
        whose = ", of this corpus" if choice.pixels else ""
        self.normalisation = f"pixels (x - {self._net.mean:.4f}) / {self._net.std:.4f}{whose}"

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, np.ndarray]:
        return self._net(np.stack([face.crop for face in faces]))


class NoRows:
    """Faces to be looked at: rows of no columns."""

    name, width, classes, colour = "crops", 0, (), False
    fingerprint, normalisation = "crops", "none"

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, None]:
        return np.empty((len(faces), 0), np.float32), None


class PixelSums:
    """Per face the sum of its crop's pixels, and of their squares the quotient by 4096 and the remainder: whole numbers
    that float32 holds, so that they add up to the same in any order."""

    name, width, classes, colour = "pixels", 3, (), False
    fingerprint, normalisation = "pixels-1", "none"

    def __call__(self, faces: list[Face]) -> tuple[np.ndarray, None]:
        crops = np.stack([face.crop for face in faces]).astype(np.int64).reshape(len(faces), -1)
        squares = (crops * crops).sum(1)
        return np.column_stack([crops.sum(1), squares // SQUARES, squares % SQUARES]).astype(np.float32), None

"""Faces with labels from an npz file, and their training and validation parts."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.files import refuse_pointer
from memofast.npz import npz_arrays
from memofast.prepare.faces.denseface import resize_faces


@dataclass(frozen=True)
class FaceData:
    """images [n, 64, 64] uint8, labels [n] int64, names of the classes."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def read_faces(path: Path, limit: int = 0) -> FaceData:
    """Labelled faces from an npz file, without copies; `limit` of them, drawn evenly over the file. Raises
    MemofastError on anything else.

    FER2013 holds hundreds of pictures twice: a copy in the validation part of one trained on would be no test.
    """
    if not path.is_file():
        raise MemofastError(f"no file {path}; give an npz with images, labels and classes")
    refuse_pointer(path)
    try:
        data = npz_arrays(path, ("images", "labels", "classes"))
        images, labels, classes = data["images"], data["labels"], data["classes"]
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error)[:160]  # zipfile quotes what it finds in place of a header
        raise MemofastError(f"{path} is not an npz with images, labels and classes ({reason}); convert it") from error
    if images.ndim != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise MemofastError(f"{path}: images must be [n, height, width] uint8, not {list(images.shape)} {images.dtype}")
    if (
        labels.dtype.kind not in "iu"
        or labels.shape != (len(images),)
        or labels.min() < 0
        or labels.max() >= len(classes)
    ):
        raise MemofastError(f"{path}: labels must be {len(images)} numbers from 0 to {len(classes) - 1}")
    first = np.sort(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])
    if len(first) < len(images):
        print(f"{len(images) - len(first)} of {len(images)} images are copies of others; left out")
        images, labels = images[first], labels[first]
    if 0 < limit < len(images):
        chosen = np.linspace(0, len(images) - 1, limit).astype(np.int64)
        images, labels = images[chosen], labels[chosen]
    return FaceData(resize_faces(images), labels.astype(np.int64), tuple(str(name) for name in classes))


def stratified_parts(labels: np.ndarray, validation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and validation part; the same share of each class is held out, at least one where it has
    two."""
    rng = np.random.default_rng([seed, 1])
    held = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = max(1, round(validation * len(members))) if len(members) > 1 else 0
        held.append(members[:count])
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out

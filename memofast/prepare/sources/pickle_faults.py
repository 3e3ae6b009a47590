"""What is no slip of single values in a feature pickle but a fault of the file, told before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memofast.errors import MemofastError

_SHOWN = 8
_CLASSES = (0, 1, 2)  # of MMSA: negative, neutral, positive


def refuse_lengths(lengths: np.ndarray, rows: int, what: str, of: str) -> None:
    """Raises: `MemofastError` for lengths [N] of samples that arrays of so many rows cannot hold. what: the lengths;
    of: the arrays."""
    beyond = np.flatnonzero((lengths < 0) | (lengths > rows))
    if not len(beyond):
        return
    told = f"of sample {beyond[0]} is {lengths[beyond[0]]}"
    if len(beyond) > 1:
        told = f"of {len(beyond)} samples ({_listed(beyond)}) are as {lengths[beyond[0]]}"
    raise MemofastError(
        f"{what} {told}, but {of} has 0 to {rows} rows a sample; mend the lengths, or the array, in the file"
    )


def refuse_classes(values: np.ndarray, classes: Any, what: str) -> None:
    """Raises: `MemofastError` for labels [N] that are numbers of classes, not a sentiment: those of all three, or what
    the file gives as its `classes` itself."""
    found = np.unique(values[np.isfinite(values)])
    if not len(found) or not np.isin(found, _CLASSES).all():
        return
    try:
        same = len(found) > 1 and np.array_equal(np.asarray(classes, np.float32).reshape(-1), values)
    except (TypeError, ValueError):
        same = False
    if same or len(found) == len(_CLASSES):
        raise MemofastError(
            f"{what} are {', '.join(f'{value:g}' for value in found)} alone, numbers of classes and no values of a "
            "sentiment; give the regression labels in the file"
        )


class LostColumns:
    """Columns of a store that are not finite in any row of any sample of a split that is not padding."""

    def __init__(self, width: int):
        self._lost, self._looked = np.ones(width, bool), False

    def look(self, rows: np.ndarray, bad: np.ndarray) -> None:
        """Take a sample's rows [L, width] as they stand in the file. bad [L, width] bool: what is not finite."""
        if self._lost.any() and len(used := np.flatnonzero((rows != 0).any(1))):
            self._lost &= bad[used].all(0)
            self._looked = True

    def refuse(self, what: str) -> None:
        """Raises: `MemofastError` naming the columns, where there are such."""
        if self._looked and self._lost.any():
            columns = np.flatnonzero(self._lost)
            which, it = (
                (f"column {columns[0]} is", "it") if len(columns) == 1 else (f"columns {_listed(columns)} are", "them")
            )
            raise MemofastError(
                f"{what}: {which} NaN or infinite in every sample; leave {it} out of the array in the file, or extract "
                "the features anew"
            )


def _listed(places: Sequence[int]) -> str:
    return ", ".join(map(str, places[:_SHOWN])) + (", ..." if len(places) > _SHOWN else "")

"""Columns of a feature pickle as arrays and texts: each looked at before NumPy is, which takes what memory and time the
nesting of lists asks for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from memofast.errors import MemofastError

_MOST_NUMBERS = 1 << 26  # of lists made into an array
_DEEPEST = 8


def rectangle(values: Any, what: str) -> np.ndarray:
    """An array of numbers [N, ...], as it stands where it is one, else of lists of one shape.

    Raises: `MemofastError` for text, objects, a single number, lists of several shapes and too many numbers.
    """
    single = not values.ndim if isinstance(values, np.ndarray) else not isinstance(values, list | tuple)
    if single or _has_text(values):
        raise MemofastError(f"{what} are not numbers of one shape")
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values
    return numbers(values, what)


def numbers(values: Any, what: str) -> np.ndarray:
    """float32; texts that are numbers are read as such. Raises: as `rectangle`."""
    refused = MemofastError(f"{what} are not numbers of one shape")
    shape = _shape(values, {}, 0)
    if shape is None:
        raise refused
    if np.prod(shape, dtype=object) > _MOST_NUMBERS:
        raise MemofastError(f"{what} have shape {list(shape)}, over {_MOST_NUMBERS} numbers; write them as an array")
    try:
        with np.errstate(over="ignore"):
            found = np.asarray(_unpacked(values), np.float32)
    except (ValueError, TypeError, OverflowError):
        raise refused from None
    if found.shape != shape:
        raise refused
    return found


def whole_numbers(values: Any, what: str) -> np.ndarray:
    """[N] int64. Raises: `MemofastError` for anything else."""
    refused = MemofastError(f"{what} are not whole numbers, one a sample")
    shape = _shape(values, {}, 0)
    if shape is None or len(shape) != 1 or _has_text(values):
        raise refused
    try:
        found = np.asarray(_unpacked(values), np.float64)
    except (ValueError, TypeError, OverflowError):
        raise refused from None
    if found.shape != shape or not (np.isfinite(found) & (found == np.round(found)) & (np.abs(found) < 2**53)).all():
        raise refused
    return found.astype(np.int64)


def column(values: Any, what: str) -> Sequence[Any] | np.ndarray:
    """A list or array with an entry a sample. Raises: `MemofastError` for anything else, as a dict."""
    if isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim):
        return values
    raise MemofastError(f"{what} is no list with an entry a sample")


def words_of(given: Any, what: str) -> list[str]:
    """A text, number or flat row of them as texts. Raises: `MemofastError` for anything else, as text that is not
    UTF-8."""
    if isinstance(given, np.ndarray):
        if given.size > _MOST_WORDS:
            raise MemofastError(f"{what} holds {given.size} values, which is no text")
        given = given.reshape(-1).tolist()
    parts = given if isinstance(given, list | tuple) else [given]
    if not 0 < len(parts) <= _MOST_WORDS:
        raise MemofastError(f"{what} holds {len(parts)} values, which is no text")
    return [_word(part, what) for part in parts]


_MOST_WORDS = 64


def _word(part: Any, what: str) -> str:
    if isinstance(part, np.ndarray) and part.size == 1 and part.dtype.kind != "O":
        part = part.reshape(-1)[0]
    part = part.item() if isinstance(part, np.generic) else part
    try:
        if isinstance(part, bytes | memoryview):
            return str(part, "utf-8")
        if isinstance(part, str):
            part.encode("utf-8")
            return part
    except ValueError:
        shown = ascii(bytes(part[:40]) if isinstance(part, memoryview) else part[:40])
        raise MemofastError(f"{what} {shown} is no text in UTF-8; mend it in the file") from None
    if isinstance(part, int | float):
        return str(part)
    raise MemofastError(f"{what} is a {type(part).__name__}, neither text nor number")


def _shape(values: Any, known: dict[int, tuple[int, ...] | None], depth: int) -> tuple[int, ...] | None:
    """The shape of nested lists, None where they have none. known: of lists that were looked at, for one may stand in
    many places."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return values.shape
    if isinstance(values, str | bytes | int | float | None):
        return ()
    if not isinstance(values, list | tuple | np.ndarray) or depth > _DEEPEST:
        return None
    if id(values) in known:
        return known[id(values)]
    known[id(values)] = None  # what holds itself has no shape
    items = values.reshape(-1) if isinstance(values, np.ndarray) else values
    first = _shape(items[0], known, depth + 1) if len(items) else ()
    if first is None or any(_shape(item, known, depth + 1) != first for item in items[1:]):
        return None
    known[id(values)] = shape = (values.shape if isinstance(values, np.ndarray) else (len(values),)) + first
    return shape


def _unpacked(values: Any) -> Any:
    """Arrays of objects as lists, for numpy makes no numbers of arrays within them."""
    if isinstance(values, np.ndarray):
        return [_unpacked(item) for item in values.tolist()] if values.dtype.kind == "O" else values
    return [_unpacked(item) for item in values] if isinstance(values, list | tuple) else values


def _has_text(values: Any) -> bool:
    """Whether the first of nested values is text."""
    for _ in range(_DEEPEST):
        if isinstance(values, list | tuple) and values:
            values = values[0]
        elif isinstance(values, np.ndarray) and values.dtype.kind == "O" and values.size:
            values = values.reshape(-1)[0]
    return isinstance(values, str | bytes) or (isinstance(values, np.ndarray) and values.dtype.kind in "SU")

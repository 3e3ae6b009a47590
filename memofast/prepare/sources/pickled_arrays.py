"""What NumPy writes into pickles, as inert stand-ins. No word of a file reaches NumPy: an array is made of its bytes
once kind, size, byte order and shape are of a list and agree with their number."""

import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Spend = Callable[[int], None]  # told of bytes before they are taken; raises Refused where they are too many

_WORD = re.compile(r"([biufOSU])(\d{0,8})")
_SIZES = {"b": {1}, "i": {1, 2, 4, 8}, "u": {1, 2, 4, 8}, "f": {2, 4, 8}, "O": {4, 8}}
_MOST_DIMENSIONS, _MOST_BYTES = 32, 1 << 40
_MOST_CHARACTER = 0x10FFFF


class Refused(Exception):
    """One phrase: what a file asks for that is not read."""


@dataclass
class Dtype:
    """A dtype of the list: kind, bytes of an element, byte order."""

    kind: str
    size: int
    order: str = "="

    @classmethod
    def named(cls, word: Any, *_flags: Any) -> "Dtype":
        found = _WORD.fullmatch(word) if isinstance(word, str) else None
        if not found:
            shown = f"the dtype {word[:40]!a}" if isinstance(word, str) else "a dtype without a name"
            raise Refused(f"it asks for {shown}, and only b, i, u, f, S, U and O are read")
        kind, count = found[1], int(found[2] or (8 if found[1] == "O" else 0))
        size = 4 * count if kind == "U" else count
        if not size or size not in _SIZES.get(kind, {size}):
            raise Refused(f"it asks for the dtype {word!r}, which has no such size")
        return cls(kind, size)

    def build(self, state: Any) -> None:
        """Take the byte order from a state (3, order, None, None, None, size, alignment, flags)."""
        if not isinstance(state, tuple) or len(state) != 8 or state[0] != 3 or state[2:5] != (None,) * 3:
            raise Refused("it asks for a dtype with fields, parts or metadata")
        order, size = state[1], state[5]
        if order not in ("<", ">", "|", "=") or (self.kind in "SU" and size != self.size):
            raise Refused("it asks for a dtype whose parts contradict one another")
        self.order = order

    def numpy(self, kind: str | None = None) -> np.dtype:
        kind = kind or self.kind
        return np.dtype(f"{self.order}{kind}{self.size // 4 if kind == 'U' else self.size}")


@dataclass(eq=False)
class Blank:
    """An array before its state. memo: under which numbers it was kept."""

    memo: list[int] = field(default_factory=list)

    def build(self, state: Any, spend: Spend) -> np.ndarray:
        """The array of a state (1, shape, dtype, whether in Fortran order, its bytes or list of objects)."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Refused("it holds an array whose state is of another form")
        shape, dtype, fortran, data = state[-4:]
        return make_array(data, dtype, shape, "F" if fortran else "C", spend)


def make_array(data: Any, dtype: Any, shape: Any, order: str, spend: Spend) -> np.ndarray:
    """A read-only array over `data` (bytes, or text of one byte a character), or one of the objects of a list.

    Raises: `Refused` where shape, kind and number of bytes do not agree.
    """
    if not isinstance(dtype, Dtype):
        raise Refused("it holds an array without a dtype")
    count = _elements(shape, dtype)
    if dtype.kind == "O":
        return _of_objects(data, count, shape, order, spend)
    if isinstance(data, str):
        spend(len(data))
        data = data.encode("latin1")
    if not isinstance(data, bytes | memoryview) or len(data) != count * dtype.size:
        told = f"{len(data)} bytes" if isinstance(data, bytes | memoryview) else "no bytes"
        raise Refused(f"it holds an array of shape {list(shape)} and {dtype.size} bytes an element, with {told}")
    if not count:
        return np.empty(shape, dtype.numpy())
    if dtype.kind == "b":  # NumPy relies on 0 and 1
        spend(count)
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape, order=order)
    if dtype.kind == "U":
        characters = np.frombuffer(data, np.dtype(f"{dtype.order}u4"))
        if characters.max() > _MOST_CHARACTER:
            raise Refused("it holds an array of text with characters that do not exist")
    return np.frombuffer(data, dtype.numpy()).reshape(shape, order=order)


def _elements(shape: Any, dtype: Dtype) -> int:
    whole = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if not whole or len(shape) > _MOST_DIMENSIONS:
        raise Refused("it holds an array whose shape is no row of numbers")
    reach = dtype.size  # of an empty array as if its empty sides were 1
    for side in shape:
        reach *= max(side, 1)
        if reach > _MOST_BYTES:
            raise Refused(f"it declares an array of shape {ascii(list(shape))[:80]}, larger than any file")
    return 0 if 0 in shape else reach // dtype.size


def _of_objects(items: Any, count: int, shape: tuple[int, ...], order: str, spend: Spend) -> np.ndarray:
    if type(items) is not list or len(items) != count:
        raise Refused(f"it holds an array of {count} objects without their list")
    spend(8 * count)
    values = np.empty(count, object)
    for place, item in enumerate(items):
        values[place] = item
    return values.reshape(shape, order=order)


def let_go(array: np.ndarray) -> bool:
    """Give the memory of what was read of an array that lies in a mapped file back; it is read again when asked for.

    Returns: whether the array lies in a file.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else None
    if not isinstance(mapped, mmap.mmap):
        return False
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return True

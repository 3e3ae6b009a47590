"""Arrays of `.npz` files of others: sizes are read and judged before memory is taken, and NumPy is given no word of a
file but those of a list."""

import ast
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

MOST_BYTES = 1 << 30
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|[SU][1-9]\d{0,7})")
_LONGEST_HEADER = 10_000  # bytes, as numpy's own limit
_PART = 1 << 20  # bytes read at once
_MOST_CHARACTER = 0x10FFFF


class ArraysTooLarge(ValueError):
    """Arrays that declare more bytes than are read."""


def npz_arrays(path: Path | IO[bytes], names: Iterable[str], most: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of these names that the file has: booleans, numbers and texts.

    path: of the file, or the open file. most: bytes of all of them together; without it 1 GiB, or as many as the file
    at a path has.
    Raises: `OSError`; `ArraysTooLarge`; `ValueError` or `zipfile.BadZipFile` where the file is no such one.
    """
    if most is None:
        most = max(MOST_BYTES, path.stat().st_size if isinstance(path, Path) else 0)
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            for name in names:
                if f"{name}.npy" in there:
                    with archive.open(f"{name}.npy") as file:
                        found[name] = _read_array(file, most)
                    most -= found[name].nbytes
    except (zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError) as error:
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from None
    return found


def npy_array(path: Path, most: int = MOST_BYTES) -> np.ndarray:
    """The array of a `.npy` file. Raises: as `npz_arrays`."""
    try:
        with path.open("rb") as file:
            return _read_array(file, most)
    except struct.error as error:
        raise ValueError(str(error)) from None


def _read_array(file: IO[bytes], most: int) -> np.ndarray:
    dtype, shape, order = _header(file)
    size = math.prod(shape) * dtype.itemsize
    if math.prod(max(side, 1) for side in shape) * dtype.itemsize > most:
        raise ArraysTooLarge(f"an array of shape {list(shape)} takes over {most} bytes")
    data, at = bytearray(size), 0
    while at < size:
        part = file.read(min(_PART, size - at))
        if not part:
            raise ValueError(f"an array of {size} bytes ends after {at}")
        data[at : at + len(part)] = part
        at += len(part)
    if file.read(1):  # which also looks at the checksum
        raise ValueError("an array with more bytes than its shape")
    if dtype.kind == "U" and size and np.frombuffer(data, dtype.str[0] + "u4").max() > _MOST_CHARACTER:
        raise ValueError("text with characters that do not exist")
    if dtype.kind == "b":  # numpy relies on 0 and 1
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape, order=order)
    return (np.frombuffer(data, dtype) if size else np.empty(0, dtype)).reshape(shape, order=order)


def _header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], Any]:
    version = np.lib.format.read_magic(file)
    width = "<H" if version == (1, 0) else "<I"
    (length,) = struct.unpack(width, file.read(struct.calcsize(width)))
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    try:
        header = ast.literal_eval(file.read(length).decode("utf-8" if version == (3, 0) else "latin1"))
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (SyntaxError, TypeError, KeyError, RecursionError, MemoryError, ValueError):
        raise ValueError("a header that is none of numpy's") from None
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr):
        raise ValueError(f"values of the kind {ascii(descr)[:40]}")
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 32:
        raise ValueError("a header whose shape is no row of numbers")
    return np.dtype(descr), shape, "F" if fortran else "C"

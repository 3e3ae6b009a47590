"""What legacy records are made of: msgpack, lz4 frames and msgpack-numpy's dicts, none of which is believed.

Sizes are judged before memory is taken, and NumPy is given no word of a record but those of a list: the library
msgpack-numpy would unpickle what a record names.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_TEXT = 4 << 20  # bytes of one text record, packed or not
MOST_FEATURES = 128 << 20  # bytes of one feature record
_MOST_ITEMS = 1 << 14  # of one list; a text has at most 100 words
_MOST_FIELDS = 256
_MOST = 1 << 31
_RATIO = 256  # lz4 packs a byte at most 255 times
_DTYPE = re.compile(rb"[<>|=]?(?:b1|[iu][1248]|f[248])")


class Damaged(ValueError):
    """A record that cannot be used: one phrase, by which such records are counted."""


def unframe(value: bytes | memoryview) -> bytes:
    """The contents of an lz4 frame. Raises: `Damaged`."""
    import lz4.frame

    if len(value) > MOST_TEXT:
        raise Damaged(f"of over {MOST_TEXT >> 20} MiB")
    frame = lz4.frame.LZ4FrameDecompressor()
    try:
        found = frame.decompress(bytes(value), max_length=min(MOST_TEXT, _RATIO * len(value)) + 1)
    except (RuntimeError, ValueError, EOFError):
        raise Damaged("that are no lz4 frames") from None
    if len(found) > MOST_TEXT:
        raise Damaged(f"of over {MOST_TEXT >> 20} MiB")
    if not frame.eof:
        raise Damaged("whose lz4 frames are cut short")
    if frame.unused_data:
        raise Damaged("with bytes after their lz4 frames")
    return found


def unpack(data: bytes) -> dict[str, Any]:
    """The fields of a msgpack record by name; text is bytes still, whichever of msgpack's two kinds it was. Raises:
    `Damaged`."""
    import msgpack

    try:
        found = msgpack.unpackb(
            data, raw=True, strict_map_key=True, max_array_len=_MOST_ITEMS, max_map_len=_MOST_FIELDS, max_ext_len=0
        )
    except (ValueError, TypeError, OverflowError, RecursionError):  # all that msgpack raises
        raise Damaged("that are no msgpack") from None
    if not isinstance(found, dict):
        raise Damaged("that are no msgpack of fields")
    return {text(name): value for name, value in found.items()}


def text(value: Any) -> str:
    """Text of a record. Raises: `Damaged`."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    raise Damaged("with names that are no text")


def is_array(value: Any) -> bool:
    """Whether msgpack-numpy wrote it."""
    return isinstance(value, dict) and b"nd" in value


def array(value: Any) -> np.ndarray:
    """The array, or number as an array without dimensions, of a dict of msgpack-numpy: booleans, integers, floats.

    Raises: `Damaged` where kind, shape and number of bytes are not of a list or do not agree.
    """
    if not is_array(value) or not isinstance(value.get(b"data"), bytes):
        raise Damaged("with fields that are no arrays")
    kind, shape = value.get(b"type"), value.get(b"shape") if value[b"nd"] else []
    if not isinstance(kind, bytes) or value.get(b"kind") or not _DTYPE.fullmatch(kind):
        raise Damaged("with arrays that are not of numbers")
    if not isinstance(shape, list) or len(shape) > 8 or not all(type(side) is int and side >= 0 for side in shape):
        raise Damaged("with arrays without a shape")
    dtype, data = np.dtype(kind.decode()), value[b"data"]
    reach = math.prod(max(side, 1) for side in shape) * dtype.itemsize
    if reach > MOST_FEATURES or math.prod(shape) * dtype.itemsize != len(data):
        raise Damaged("with arrays whose shape is not that of their bytes")
    if dtype.kind == "b":  # numpy relies on 0 and 1
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return (np.frombuffer(data, dtype) if data else np.empty(0, dtype)).reshape(shape)


def integer(value: Any) -> int:
    """A whole number: of msgpack, of numpy, as text, or an array of one. Raises: `Damaged`."""
    if type(value) is int and abs(value) < _MOST:
        return value
    if is_array(value):
        found = array(value)
        value = found.reshape(-1)[0].item() if found.size == 1 and found.dtype.kind in "iu" else None
    if isinstance(value, bytes) and re.fullmatch(rb"\d{1,9}", value):
        value = int(value)
    if type(value) is not int or abs(value) >= _MOST:
        raise Damaged("with numbers that are no whole ones")
    return value


def row(value: Any) -> np.ndarray:
    """A row of floats [n]: an array, also of one row, or a list of numbers, also of arrays of one. Raises: `Damaged`
    where it is none or not finite."""
    if isinstance(value, list):
        parts = [array(one).reshape(-1) if is_array(one) else np.array([_number(one)]) for one in value]
        found = np.concatenate(parts) if parts and all(len(part) == 1 for part in parts) else np.empty(0)
    else:
        found = array(value)
        found = found[0] if found.ndim == 2 and len(found) == 1 else found
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iuf":
        raise Damaged("with fields that are no row of numbers")
    with np.errstate(over="ignore"):
        found = found.astype(np.float32)
    if not np.isfinite(found).all():
        raise Damaged("with numbers that are not finite")
    return found


def _number(value: Any) -> float:
    if type(value) in (int, float) and abs(value) < 1e30:
        return float(value)
    raise Damaged("with fields that are no row of numbers")


def known_arrays(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of the fields that have these names, as arrays. Raises: `Damaged`."""
    return {name: array(fields[name]) for name in names if name in fields}

"""Record version 1: how one sample's rows lie in an LMDB value, little-endian.

    header   magic "MFCR", version u16, number of columns u16, rows u32, bytes of the whole record u32
    columns  per column: name id u16, dtype id u16, width u32, offset u32, bytes u32
    values   each column at a multiple of 16 bytes from the start of the record, gaps zero

Width is the number of values per row; width 0 marks a column without rows: `label`, `value` and `value_*` (one value
each), `emotions` (one value per class) and `utf8` (any number of bytes).
`csrc/host/gather.cpp` reads the same layout.
"""

import struct
from collections.abc import Mapping

import numpy as np

from memofast.errors import MemofastError

MAGIC = b"MFCR"
VERSION = 1
NAMES = {
    "rows": 1,
    "times": 2,
    "confidence": 3,
    "soft_labels": 4,
    "tokens": 5,
    "words": 6,
    "lexicon": 7,
    "utf8": 8,
    "label": 9,
    "emotions": 10,
    "value": 11,
    "part_of_speech": 12,
    "polarity": 13,
    "value_text": 14,
    "value_visual": 15,
    "value_speech": 16,
}
MODALITY_VALUES = {name: f"value_{name}" for name in ("text", "visual", "speech")}
WITHOUT_ROWS = ("utf8", "label", "emotions", "value", *MODALITY_VALUES.values())
DTYPES = {"float32": 0, "float16": 2, "int32": 3, "int64": 4, "uint8": 5, "int16": 6}
_HEADER = struct.Struct("<4sHHII")
_COLUMN = struct.Struct("<HHIII")
_NAME_OF = {number: name for name, number in NAMES.items()}
_DTYPE_OF = {number: np.dtype(name) for name, number in DTYPES.items()}


def is_known(name: str) -> bool:
    """Whether this reader knows a column of that name; it leaves out those of later versions."""
    return name in _NAME_OF.values()


def encode(rows: int, columns: Mapping[str, np.ndarray]) -> bytes:
    """One record of `rows` rows.

    Args: columns: name -> [rows, width] or [rows] array (width 1), or a 1-d array for the columns without rows.
    """
    offset = _aligned(_HEADER.size + _COLUMN.size * len(columns))
    entries, values = [], []
    for name, array in columns.items():
        array = np.ascontiguousarray(array)
        width = 0 if name in WITHOUT_ROWS else array.shape[1] if array.ndim == 2 else 1
        entries.append(_COLUMN.pack(NAMES[name], DTYPES[array.dtype.name], width, offset, array.nbytes))
        values.append((offset, array.tobytes()))
        offset = _aligned(offset + array.nbytes)
    size = values[-1][0] + len(values[-1][1])
    record = bytearray(size)
    record[: _HEADER.size] = _HEADER.pack(MAGIC, VERSION, len(columns), rows, size)
    table = b"".join(entries)
    record[_HEADER.size : _HEADER.size + len(table)] = table
    for start, data in values:
        record[start : start + len(data)] = data
    return bytes(record)


def row_count(record: memoryview | bytes, where: str) -> int:
    """Rows of a record, after a check of its header. Raises `MemofastError`, beginning with `where`."""
    if len(record) < _HEADER.size:
        raise MemofastError(f"{where} is truncated ({len(record)} bytes): restore the store or write it anew")
    magic, version, columns, rows, size = _HEADER.unpack_from(record)
    if magic != MAGIC:
        raise MemofastError(f"{where} is not a memofast record: restore the store or write it anew")
    if version != VERSION:
        raise MemofastError(f"{where} has record version {version}, this memofast reads {VERSION}: update memofast")
    if size != len(record) or _HEADER.size + columns * _COLUMN.size > size:
        raise MemofastError(f"{where} is truncated ({len(record)} of {size} bytes): restore the store or write it anew")
    return rows


def decode(record: memoryview | bytes, where: str) -> dict[str, np.ndarray]:
    """Name -> array (a copy) of every known column: [rows, width], or 1-d for width 1 and for columns without rows.

    Raises: `MemofastError`, beginning with `where`, for a record that is corrupt, truncated or of another version.
    """
    rows = row_count(record, where)
    count = _HEADER.unpack_from(record)[2]
    columns = {}
    for index in range(count):
        name, dtype, width, offset, size = _COLUMN.unpack_from(record, _HEADER.size + index * _COLUMN.size)
        if name not in _NAME_OF:
            continue
        sound = dtype in _DTYPE_OF and offset % 16 == 0 and offset + size <= len(record)
        sound = sound and _NAME_OF[name] not in columns and size % _DTYPE_OF[dtype].itemsize == 0
        if not sound or (width > 0 and size != rows * width * _DTYPE_OF[dtype].itemsize):
            raise MemofastError(f"{where} is corrupt in column {_NAME_OF[name]}: restore the store or write it anew")
        values = np.frombuffer(bytes(record[offset : offset + size]), _DTYPE_OF[dtype])
        columns[_NAME_OF[name]] = values.reshape(rows, width) if width > 1 else values
    return columns


def _aligned(offset: int) -> int:
    return (offset + 15) // 16 * 16

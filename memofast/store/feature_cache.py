"""Vectors that encoders made of samples, kept by what they were made of: in an LMDB that many processes read while
others add to it."""

from __future__ import annotations

import fcntl
import os
import struct
import time
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np

from memofast.errors import MemofastError

KEY_BYTES = 48  # 16 of the encoder's fingerprint, 32 of the sample's content
MAKER_BYTES = 16
_MOST = 1 << 40  # bytes that the map may grow to; the file is as long as what it holds
_HEAD = struct.Struct("<dIB")  # seconds since 1970, CRC-32 of the numbers, their type
_TYPES = (np.dtype("<f4"), np.dtype("<f2"))
_DATA, _IN_USE = "data.mdb", ".in_use"


_OPEN: weakref.WeakValueDictionary[str, FeatureCache] = weakref.WeakValueDictionary()


def open_cache(folder: Path) -> FeatureCache:
    """The cache in a folder, to read and to add to; all of a process share one, as LMDB wants it. Raises: as
    `FeatureCache`."""
    place = os.path.realpath(folder)
    if (found := _OPEN.get(place)) is None:
        found = _OPEN[place] = FeatureCache(folder)
    return found


class Made(NamedTuple):
    """Of one encoder: entries, and bytes of their numbers."""

    entries: int
    bytes: int


class FeatureCache:
    """A folder of vectors. Keys are of `KEY_BYTES` bytes, those of one encoder's begin with its fingerprint.

    Args: writes: whether anything is added or removed. new: whether the folder is made where there is none.
    Raises: `MemofastError` where the folder holds something else or cannot be written.
    """

    def __init__(self, folder: Path, writes: bool = True, new: bool = True):
        self.folder, self._writes = folder, writes
        if not (writes and new) and not (folder / _DATA).is_file():
            raise MemofastError(f"{folder}: no cache of features; memofast cache fill makes one")
        if writes and folder.exists() and any(folder.iterdir()) and not (folder / _DATA).is_file():
            raise MemofastError(f"{folder} holds something else than a cache of features; choose another folder")
        self._env = self._opened()

    def _opened(self) -> lmdb.Environment:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._use = os.open(self.folder / _IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
            self._unused = weakref.finalize(self, os.close, self._use)  # at the latest with this object
            fcntl.flock(self._use, fcntl.LOCK_SH)
            return lmdb.open(str(self.folder), map_size=_MOST, readonly=not self._writes, max_readers=512)
        except (lmdb.Error, OSError) as error:
            raise MemofastError(f"{self.folder}: no cache of features can be opened there ({error})") from None

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "_writes": self._writes}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._env = self._opened()

    def __deepcopy__(self, _) -> FeatureCache:
        return self

    def read(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """The vectors [width] of keys, in the type in which they are kept; None where there is none, or it is
        damaged."""
        with self._env.begin(buffers=True) as transaction:
            return [None if (value := transaction.get(key)) is None else _numbers(value) for key in keys]

    def add(self, made: Mapping[bytes, np.ndarray]) -> None:
        """Keep vectors [width] float32 or float16. Raises: `MemofastError` where the disk is full."""
        try:
            with self._env.begin(write=True) as transaction:
                for key, vector in made.items():
                    transaction.put(key, _value(vector))
        except lmdb.Error as error:
            raise MemofastError(f"{self.folder} cannot be written ({error}); free space, then run again") from None

    def __len__(self) -> int:
        return self._env.stat()["entries"]

    def makers(self) -> dict[str, Made]:
        """What there is of each encoder, by its fingerprint in hexadecimal."""
        found: dict[str, Made] = {}
        for key, value in self._entries():
            one = found.get(name := key[:MAKER_BYTES].hex(), Made(0, 0))
            found[name] = Made(one.entries + 1, one.bytes + len(value) - _HEAD.size)
        return found

    def damaged(self) -> list[bytes]:
        """Keys of entries whose numbers are not what was written."""
        return [key for key, value in self._entries() if len(key) != KEY_BYTES or _numbers(value) is None]

    def remove(self, keys: Iterable[bytes]) -> None:
        with self._env.begin(write=True) as transaction:
            for key in keys:
                transaction.delete(key)

    def prune(self, most: int) -> int:
        """Remove the oldest entries until the numbers of those that are left take at most so many bytes; the file
        shrinks. Returns: how many went. Raises: `MemofastError` where another process has it open."""
        try:
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MemofastError(f"{self.folder} is open in another process; prune it when that has ended") from None
        ages = sorted((_HEAD.unpack_from(value)[0], key, len(value) - _HEAD.size) for key, value in self._entries())
        left, gone = sum(size for *_, size in ages), []
        for _, key, size in ages:
            if left <= most:
                break
            gone.append(key)
            left -= size
        self.remove(gone)
        self._compact()
        return len(gone)

    def close(self) -> None:
        self._env.close()
        self._unused()

    def _compact(self) -> None:
        fresh = self.folder / ".compacted"
        fresh.mkdir(exist_ok=True)
        self._env.copy(str(fresh), compact=True)
        self.close()
        (fresh / _DATA).replace(self.folder / _DATA)
        fresh.rmdir()
        self._env = self._opened()

    def _entries(self) -> Iterator[tuple[bytes, memoryview]]:
        with self._env.begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                yield bytes(key), value


def _value(vector: np.ndarray) -> bytes:
    data = np.ascontiguousarray(vector).tobytes()
    return _HEAD.pack(time.time(), zlib.crc32(data), _TYPES.index(vector.dtype)) + data


def _numbers(value: memoryview) -> np.ndarray | None:
    if len(value) < _HEAD.size:
        return None
    _, check, kind = _HEAD.unpack_from(value)
    data = bytes(value[_HEAD.size :])
    return np.frombuffer(data, _TYPES[kind]) if kind < len(_TYPES) and zlib.crc32(data) == check else None

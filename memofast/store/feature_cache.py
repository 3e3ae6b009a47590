"""Vectors that encoders made of samples, kept by what they were made of: in an LMDB that many processes read while
others add to it.

As of a store, every page is found by `pages`, which checks it; LMDB only writes, and holds what a reader looks at. Each
vector has a check sum over its key, so that one that lies in another's place is none.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np
from xxhash import xxh3_64_intdigest

from memofast.errors import MemofastError
from memofast.files import name_unless_there, remove, sweep, sync_entry, temporary_of
from memofast.store import environments
from memofast.store.pages import DATA, Pages, Snapshot

KEY_BYTES = 48  # 16 of the encoder's fingerprint, 32 of the sample's content
MAKER_BYTES = 16
_READERS = 512
_HEAD = struct.Struct("<dQB")  # seconds since 1970; XXH3 of key, type and numbers; type
_TYPES = (np.dtype("<f4"), np.dtype("<f2"))
_IN_USE = ".in_use"
_OWN = {DATA, "lock.mdb", _IN_USE}


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
    Raises: `MemofastError` where the folder holds something else, is damaged or cannot be written.
    """

    def __init__(self, folder: Path, writes: bool = True, new: bool = True):
        self.folder, self._writes = folder, writes
        if not (writes and new) and not (folder / DATA).is_file():
            raise MemofastError(f"{folder}: no cache of features; memofast cache fill makes one")
        if folder.exists() and (not folder.is_dir() or any(map(_is_foreign, os.listdir(folder)))):
            raise MemofastError(f"{folder} holds something else than a cache of features; choose another folder")
        self._open()

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._use = os.open(self.folder / _IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
            self._unused = weakref.finalize(self, os.close, self._use)  # at the latest with this object
            fcntl.flock(self._use, fcntl.LOCK_SH)
            if self._writes:
                sweep(self.folder)
                self._begin()
        except (lmdb.Error, OSError) as error:
            raise MemofastError(f"{self.folder}: no cache of features can be opened there ({error})") from None
        self._connect()

    def _begin(self) -> None:
        """Make an empty data file where there is none: of several processes one does, as a whole."""
        if (self.folder / DATA).exists():
            return
        fresh = temporary_of(self.folder / "begun")
        try:
            fresh.mkdir()
            environments.opened(fresh).close()
            name_unless_there(fresh / DATA, self.folder / DATA)
        finally:
            remove(fresh)

    def _connect(self) -> None:
        """Open the data file, and look at every page of it before LMDB, which would follow a damaged one."""
        self._pages = Pages(self.folder, f"remove {self.folder}, and its vectors are made anew")
        try:
            self._env = environments.opened(self.folder, _READERS, self._writes)
            self._env.reader_check()  # of processes that were killed
        except (lmdb.Error, OSError) as error:
            raise MemofastError(f"{self.folder}: no cache of features can be opened there ({error})") from None
        try:
            with self._snapshot() as snapshot:
                if self._writes:
                    snapshot.check_free_pages()
                    snapshot.entries()
        except MemofastError:
            self.close()
            raise

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "_writes": self._writes}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def __deepcopy__(self, _) -> FeatureCache:
        return self

    def read(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """The vectors [width] of keys, in the type in which they are kept; None where there is none, or it is damaged.
        Raises: `MemofastError` where a page is damaged."""
        with self._snapshot() as snapshot:
            places, map = snapshot.find_keys(keys).tolist(), snapshot.map
            return [_numbers(key, map, place, size) for key, (place, size) in zip(keys, places, strict=True)]

    def add(self, made: Mapping[bytes, np.ndarray]) -> None:
        """Keep vectors [width] float32 or float16. Raises: `MemofastError` where the disk is full."""
        values = {key: _value(key, vector) for key, vector in made.items()}

        def put(transaction: lmdb.Transaction) -> None:
            for key, value in values.items():
                transaction.put(key, value)

        self._write(put)

    def __len__(self) -> int:
        with self._snapshot() as snapshot:
            return len(snapshot.entries())

    def makers(self) -> dict[str, Made]:
        """What there is of each encoder, by its fingerprint in hexadecimal."""
        found: dict[str, Made] = {}
        for key, value in self._entries():
            one = found.get(name := key[:MAKER_BYTES].hex(), Made(0, 0))
            found[name] = Made(one.entries + 1, one.bytes + _size(value))
        return found

    def damaged(self) -> list[bytes]:
        """Keys of entries whose numbers are not what was written."""
        return [
            key
            for key, value in self._entries()
            if len(key) != KEY_BYTES or _numbers(key, value, 0, len(value)) is None
        ]

    def remove(self, keys: Iterable[bytes]) -> None:
        """Raises: `MemofastError` where the disk is full."""

        def delete(transaction: lmdb.Transaction) -> None:
            for key in keys:
                transaction.delete(key)

        self._write(delete)

    def prune(self, most: int) -> int:
        """Remove the oldest entries until the numbers of those that are left take at most so many bytes; the file
        shrinks. Returns: how many went. Raises: `MemofastError` where another process has it open, or the disk is
        full."""
        try:
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MemofastError(f"{self.folder} is open in another process; prune it when that has ended") from None
        ages = sorted((_made_at(value), key, _size(value)) for key, value in self._entries())
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
        """Write what is left to a file of its own, which takes the place of the other; whoever opens the cache
        meanwhile waits."""
        fresh = temporary_of(self.folder / "compacted")
        try:
            fresh.mkdir()
            self._env.copy(str(fresh), compact=True)
            sync_entry(fresh / DATA)
            self._env.close()
            (fresh / DATA).replace(self.folder / DATA)
            sync_entry(self.folder)
        except (lmdb.Error, OSError) as error:
            raise self._unwritable(error) from None
        finally:
            remove(fresh)
        self._connect()
        fcntl.flock(self._use, fcntl.LOCK_SH)

    def _entries(self) -> Iterator[tuple[bytes, memoryview]]:
        with self._snapshot() as snapshot:
            yield from snapshot.items()

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        """The entries as they are now, which no other process writes over as long as the context is open."""
        with self._transaction(False):
            yield self._pages.snapshot()

    def _write(self, change: Callable[[lmdb.Transaction], None]) -> None:
        """Raises: `MemofastError` where the disk is full."""
        try:
            while True:
                try:
                    with self._transaction(True) as transaction:
                        change(transaction)
                    return
                except lmdb.MapFullError:
                    self._enlarge()
        except (lmdb.Error, OSError) as error:
            raise self._unwritable(error) from None

    def _transaction(self, writes: bool) -> lmdb.Transaction:
        while True:
            try:
                return self._env.begin(write=writes)
            except lmdb.MapResizedError:  # another process has added more than fits
                self._enlarge()
            except lmdb.Error as error:
                raise self._unwritable(error) from None

    def _enlarge(self) -> None:
        there = (self.folder / DATA).stat().st_size
        self._env.set_mapsize(2 * max(self._env.info()["map_size"], there))

    def _unwritable(self, error: Exception) -> MemofastError:
        return MemofastError(f"{self.folder} cannot be written ({error}); free space, then run again")


def _is_foreign(name: str) -> bool:
    return name not in _OWN and not name.endswith(".partial")


def _value(key: bytes, vector: np.ndarray) -> bytes:
    data, kind = np.ascontiguousarray(vector).tobytes(), _TYPES.index(vector.dtype)
    return _HEAD.pack(time.time(), _check(key, kind, data), kind) + data


def _numbers(key: bytes, map: memoryview, place: int, size: int) -> np.ndarray | None:
    """The numbers of a key whose value has this place in a map; None where it has none, or it is damaged."""
    if place < 0 or size < _HEAD.size:
        return None
    _, check, kind = _HEAD.unpack_from(map, place)
    data = map[place + _HEAD.size : place + size].tobytes()
    return np.frombuffer(data, _TYPES[kind]) if kind < len(_TYPES) and _check(key, kind, data) == check else None


def _check(key: bytes, kind: int, data: bytes) -> int:
    return xxh3_64_intdigest(data, xxh3_64_intdigest(key, kind))


def _size(value: memoryview) -> int:
    return max(len(value) - _HEAD.size, 0)


def _made_at(value: memoryview) -> float:
    """Seconds since 1970, of damage long ago."""
    made = _HEAD.unpack_from(value)[0] if len(value) >= _HEAD.size else 0.0
    return made if math.isfinite(made) else 0.0

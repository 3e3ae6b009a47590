"""The data file of a store, mapped into memory and read without LMDB.

LMDB follows the numbers of a file unchecked, so that a truncated or damaged one ends the process; it opens a file once
a process and not after a fork; and its map moves when the file grows. Here `csrc/host/pages.cpp` finds records with
every number checked, and a map gives way to a larger one only, living as long as somebody reads in it. Writing is
LMDB's.
"""

import errno
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from memofast import _C
from memofast.errors import MemofastError
from memofast.files import refuse_pointer

DATA = "data.mdb"
T = TypeVar("T")
_REMEDY = "restore the store or write it anew"
_MAGIC, _VERSION = 0xBEEFC0DE, 1  # LMDB 0.9
_PAGE_SIZES = [1 << power for power in range(8, 16)]
_NONE = 0xFFFFFFFFFFFFFFFF  # first page of a tree that has none
_DEEPEST = 32
# a page's number, pad, flags and two offsets; magic, version, address and size of the map; of the trees of free pages
# and of records pad (page size), flags, depth, three counts of pages, entries and first page; last page, transaction
_META = struct.Struct("<QHHHH IIQQ IHHQQQQQ IHHQQQQQ QQ")


class _Tree(NamedTuple):
    page_size: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class _Meta(NamedTuple):
    """What a transaction left."""

    magic: int
    version: int
    free: _Tree
    records: _Tree
    last_page: int
    transaction: int

    @classmethod
    def of(cls, raw: bytes) -> "_Meta":
        found = _META.unpack(raw)
        return cls(*found[5:7], _Tree(*found[9:17]), _Tree(*found[17:25]), *found[25:])

    @property
    def bytes(self) -> int:
        return (self.last_page + 1) * self.free.page_size

    def sound(self, place: int) -> bool:
        """Whether it may stand on page `place`, 0 or 1."""
        trees = all(
            tree.depth <= _DEEPEST and (tree.root <= self.last_page or tree.root == _NONE)
            for tree in (self.free, self.records)
        )
        return trees and not self.records.flags and (self.transaction == 0 or self.transaction % 2 == place)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The records as one transaction left them. raw: the file's first pages; map, address: of the file, as long as the
    snapshot lives. remedy: what to do where it is damaged."""

    path: Path
    raw: tuple[bytes, bytes]
    meta: _Meta
    map: memoryview
    address: int
    remedy: str = _REMEDY

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Where the values of these ids lie in the map: [n, 2] int64 offset and size, offset -1 for an id that is not
        there. Raises: `MemofastError` where a page is damaged."""
        return self.find_keys([id.encode("utf-8", "surrogatepass") for id in ids])

    def find_keys(self, keys: Sequence[bytes]) -> np.ndarray:
        """As `find`, of keys that are no text."""
        found = np.empty((len(keys), 2), np.int64)
        _C.find_values(self._numbers(self.meta.records), keys, found.ctypes.data)
        if (found[:, 0] < -1).any():
            raise self._damaged()
        return found

    def entries(self) -> np.ndarray:
        """All records in key order: [n, 4] int64 offset and size of key and value. Raises: `MemofastError` where a page
        is damaged."""
        return self._entries(self.meta.records, True)

    def records(self) -> Iterator[tuple[str, memoryview]]:
        """Ids and values in key order. Raises: `MemofastError` where a page is damaged."""
        for key, value in self.items():
            try:
                id = key.decode()
            except UnicodeDecodeError:
                raise self._damaged() from None
            yield id, value

    def items(self) -> Iterator[tuple[bytes, memoryview]]:
        """As `records`, of keys that are no text."""
        for key, length, offset, size in self.entries().tolist():
            yield bytes(self.map[key : key + length]), self.map[offset : offset + size]

    def check_free_pages(self) -> None:
        """Raises: `MemofastError` where the list of pages that a writer may take is damaged."""
        for _, _, offset, size in self._entries(self.meta.free, False).tolist():
            count, *pages = np.frombuffer(self.map[offset : offset + size // 8 * 8], np.uint64).tolist() or [-1]
            if count != len(pages) or not all(2 <= page <= self.meta.last_page for page in pages):
                raise self._damaged()

    def _entries(self, tree: _Tree, sorted: bool) -> np.ndarray:
        found = _C.list_entries(self._numbers(tree), sorted)
        if found is None:
            raise self._damaged()
        return np.frombuffer(found, np.int64).reshape(-1, 4)

    def _numbers(self, tree: _Tree) -> tuple[int, int, int, int, int]:
        return self.address, len(self.map), self.meta.free.page_size, tree.root, tree.depth

    def _damaged(self) -> MemofastError:
        return MemofastError(f"{self.path} has a damaged page: {self.remedy}")


class Pages:
    """The data file of the store in `folder`, open for reading, also by threads and forked processes."""

    def __init__(self, folder: Path, remedy: str = _REMEDY):
        """Raises: `MemofastError`, with a remedy, for a file that is missing, truncated or none of LMDB's."""
        self.path, self.remedy = folder / DATA, remedy
        refuse_pointer(self.path)
        try:
            if not os.path.isfile(self.path):
                raise FileNotFoundError(errno.ENOENT, "there is no such file")
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MemofastError(f"{self.path} cannot be read ({error.strerror}): {self.remedy}") from None
        weakref.finalize(self, os.close, self._file)
        self._last: Snapshot | None = None
        self.snapshot()

    @classmethod
    def begun(cls, folder: Path) -> "Pages | None":
        """None where no record was written yet: a writer was stopped before."""
        path = folder / DATA
        return cls(folder) if os.path.exists(path) and path.stat().st_size else None

    def read(self, look: Callable[[Snapshot], T]) -> T:
        """What `look` makes of a snapshot; looks again where a writer took pages of it meanwhile."""
        while True:
            snapshot = self.snapshot()
            try:
                found = look(snapshot)
            except MemofastError:
                if self._whole(snapshot):
                    raise
            else:
                if self._whole(snapshot):
                    return found

    def snapshot(self) -> Snapshot:
        """Of the last transaction; the same object until another one ends. Raises: `MemofastError` for a damaged
        file."""
        raw, last = self._metas(), self._last
        ended = last is None or last.raw != raw
        while ended and (again := self._metas()) != raw:  # a writer was at it
            raw = again
        meta = self._newest(raw) if ended else last.meta
        size = os.fstat(self._file).st_size
        if size < meta.bytes:
            raise MemofastError(f"{self.path} is truncated ({size:,} of {meta.bytes:,} bytes): {self.remedy}")
        if not ended:
            return last
        found = last.map if last else memoryview(b"")
        if len(found) < meta.bytes:
            found = self._map(size // meta.free.page_size * meta.free.page_size)
        address = np.frombuffer(found, np.uint8).ctypes.data
        self._last = Snapshot(self.path, raw, meta, found, address, self.remedy)
        return self._last

    def _whole(self, snapshot: Snapshot) -> bool:
        """Whether no page of a snapshot can have been written anew.

        A transaction takes pages that the last but one before it freed, or earlier ones: whatever the snapshot shows
        stays until two more have ended. Source: mdb_page_alloc and mdb_find_oldest of LMDB 0.9.
        """
        raw = self._metas()
        return raw == snapshot.raw or self._newest(raw).transaction <= snapshot.meta.transaction + 1

    def _metas(self) -> tuple[bytes, bytes]:
        """The pages that transactions end by writing, by turns."""
        first = os.pread(self._file, _META.size, 0)
        size = _Meta.of(first).free.page_size if len(first) == _META.size else 0
        return first, os.pread(self._file, _META.size, size) if size in _PAGE_SIZES else b""

    def _newest(self, raw: tuple[bytes, bytes]) -> _Meta:
        if len(raw[1]) < _META.size:
            raise MemofastError(f"{self.path} is truncated or no LMDB file: {self.remedy}")
        metas = [_Meta.of(part) for part in raw]
        if any((meta.magic, meta.version) != (_MAGIC, _VERSION) for meta in metas):
            raise MemofastError(f"{self.path} is no file of LMDB 0.9: {self.remedy}")
        if metas[0].free.page_size != metas[1].free.page_size or not all(m.sound(i) for i, m in enumerate(metas)):
            raise MemofastError(f"{self.path} has a damaged first page: {self.remedy}")
        return max(metas, key=lambda meta: meta.transaction)

    def _map(self, size: int) -> memoryview:
        try:
            found = mmap.mmap(self._file, size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise MemofastError(f"{self.path} cannot be mapped into memory ({error})") from None
        if hasattr(mmap, "MADV_RANDOM"):
            found.madvise(mmap.MADV_RANDOM)
        return memoryview(found)

"""Folders of LMDB as the original left them, and the JSON files beside them.

They are read through `memofast.store.pages`, which checks every number and needs no LMDB: nothing is locked, nothing is
written, and a folder may be read-only.
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, RootModel

from memofast.errors import MemofastError
from memofast.schemas import Count, Schema, read_described
from memofast.store.pages import DATA, Pages

KEYS = "__keys__"
_LOCK = "lock.mdb"
_FLOCK = "@hhqqi4x"  # struct flock of Linux: kind, whence, start, length, process
_SMALL, _A_RECORD = 1 << 20, 4096  # bytes that a side file may have, and for each record
_REMEDY = "restore it, or build the database anew"


class Counts(RootModel[dict[str, Count]]):
    """Name -> number, as in `id2len.json` and `nbb_*.json`."""

    model_config = ConfigDict(strict=True)


class Names(RootModel[dict[str, str]]):
    """Name -> name, as in `txt2img.json`."""

    model_config = ConfigDict(strict=True)


class Lists(RootModel[dict[str, list[str] | str]]):
    """Name -> names, as in `img2txts.json`; one name where a database was cut down from another."""

    model_config = ConfigDict(strict=True)


class TextMeta(Schema):
    """What of `meta.json` says which vocabulary the ids are of."""

    UNK: Count | None = None
    CLS: Count | None = None
    SEP: Count | None = None
    MASK: Count | None = None
    v_range: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None


class Database:
    """The records of one folder, as the last transaction left them. names: their keys but `__keys__`, in key order."""

    def __init__(self, path: Path):
        """Raises: `MemofastError` where there is no database, a damaged one, or one that another program has open."""
        self.path = path
        if not (path / DATA).is_file():
            raise MemofastError(f"no database at {path} ({DATA} is missing): check the path")
        _refuse_open(path)
        self._pages = Pages(path)
        self._snapshot = self._pages.snapshot()
        places = self._snapshot.entries().tolist()
        self._places: dict[str, tuple[int, int]] = {}
        for begin, size, offset, length in places:
            try:
                self._places[bytes(self._snapshot.map[begin : begin + size]).decode()] = offset, length
            except UnicodeDecodeError:
                raise MemofastError(f"{path / DATA} has keys that are no text: {_REMEDY}") from None
        self.listed = self._places.pop(KEYS, None)

    @property
    def names(self) -> list[str]:
        return list(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def value(self, name: str) -> memoryview:
        return self._at(self._places[name])

    def list_of_keys(self) -> bytes | None:
        """The value of `__keys__`, None where there is none."""
        return None if self.listed is None else bytes(self._at(self.listed))

    def _at(self, place: tuple[int, int]) -> memoryview:
        return self._snapshot.map[place[0] : place[0] + place[1]]

    def check_unchanged(self) -> None:
        """Raises: `MemofastError` where somebody wrote to it since it was opened."""
        if self._pages.snapshot() is not self._snapshot:
            raise MemofastError(f"database {self.path} was written to while it was read: run again when that has ended")

    def digest(self) -> str:
        """Names the state of the database: another one after every transaction."""
        return hashlib.blake2b(b"".join(self._snapshot.raw), digest_size=16).hexdigest()

    def side_file(self, path: Path, schema: type, what: str) -> Mapping[str, Any]:
        """The contents of a JSON file about the records. Raises: `MemofastError` where it is missing, damaged, or
        larger than such a file can be."""
        if not path.is_file():
            raise MemofastError(f"{path} is missing, and database {self.path} cannot be read without it: {_REMEDY}")
        most = _SMALL + _A_RECORD * len(self)
        if path.stat().st_size > most:
            raise MemofastError(f"{path} has more than {most:,} bytes for {len(self):,} records: {_REMEDY}")
        return read_described(path, schema, what, _REMEDY)


def disagree(database: Database, one: str, other: str, difference: set[str]) -> MemofastError:
    """What to say where a side file names other records."""
    first = ascii(min(difference))
    return MemofastError(
        f"database {database.path}: {one} and {other} disagree about {len(difference):,} names (first: {first}); "
        "restore the file that is wrong, or build the database anew"
    )


def _refuse_open(path: Path) -> None:
    """Ask the kernel whether LMDB has the database open, in this process or another: it may be about to write.

    Raises: `MemofastError` naming the process. Source: mdb_env_excl_lock of LMDB 0.9, which locks the first byte.
    """
    if not hasattr(fcntl, "F_OFD_GETLK"):
        return
    try:
        lock = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # nobody has
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_OFD_GETLK, asked))
    except OSError:
        kind = fcntl.F_UNLCK  # a disk without locks
    if kind != fcntl.F_UNLCK and process == os.getpid():
        lock = None  # stays open: closing it would let go of what LMDB holds in this process
    if lock is not None:
        os.close(lock)
    if kind != fcntl.F_UNLCK:
        raise MemofastError(
            f"database {path} is open in process {process}: end that, or import a copy of the folder without {_LOCK}"
        )

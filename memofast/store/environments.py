"""LMDB environments: those in which this process writes stores, one per real path; readers need none, see `pages`."""

import os
import threading
from pathlib import Path

import lmdb

from memofast.errors import MemofastError
from memofast.files import remove, reserve

_FIRST_MAP = 64 << 20
_READERS = 126  # as LMDB has it
_open: dict[tuple[int, str], lmdb.Environment] = {}  # by process: a forked one may not use them
_lock = threading.Lock()


def _key(path: Path) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(path)


def for_writing(path: Path) -> lmdb.Environment:
    """A writable environment of the store at `path`. Raises `MemofastError`."""
    key = _key(path)
    with _lock:
        if key in _open:
            raise MemofastError(f"store {path} is being written by this process already: finish that writer first")
        if any(written == key[1] for _, written in _open):
            raise MemofastError(
                f"store {path} is being written by the process that this one was forked from: finish that writer "
                "first, or start processes by spawn"
            )
        try:
            _open[key] = opened(Path(key[1]))
        except lmdb.Error as error:
            raise MemofastError(
                f"store {path} cannot be opened for writing ({error}): check the folder and free space"
            ) from None
        return _open[key]


def opened(path: Path, readers: int = _READERS, writes: bool = True) -> lmdb.Environment:
    """The environment in a folder, with a map that is no larger than it must be: a map takes address space, which may
    be limited. Raises: `lmdb.Error`, after which there is no half of a first page."""
    data, fresh = path / "data.mdb", not (path / "data.mdb").exists()
    try:
        reserve(path / "lock.mdb", 64 * (readers + 2))  # LMDB maps it with holes
        return lmdb.open(str(path), map_size=_FIRST_MAP, max_readers=readers, readonly=not writes)
    except OSError as error:
        raise lmdb.DiskError(f"{path / 'lock.mdb'}: {error.strerror}") from None
    except lmdb.Error:
        if fresh:
            remove(data)
        raise


def close(path: Path) -> None:
    with _lock:
        if environment := _open.pop(_key(path), None):
            environment.close()

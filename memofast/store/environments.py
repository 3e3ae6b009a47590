"""The LMDB environments in which this process writes stores, one per real path. Who reads needs none, see `pages`."""

import os
import threading
from pathlib import Path

import lmdb

from memofast.errors import MemofastError
from memofast.files import remove, reserve

_FIRST_MAP = 64 << 20
_LOCK_BYTES = 8192  # of LMDB's 126 readers
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
            _open[key] = _opened(Path(key[1]))
        except lmdb.Error as error:
            raise MemofastError(
                f"store {path} cannot be opened for writing ({error}): check the folder and free space"
            ) from None
        return _open[key]


def _opened(path: Path) -> lmdb.Environment:
    """Raises: `lmdb.Error`, after which there is no half of a first page."""
    data, fresh = path / "data.mdb", not (path / "data.mdb").exists()
    try:
        reserve(path / "lock.mdb", _LOCK_BYTES)  # LMDB maps it with holes
        return lmdb.open(str(path), map_size=_FIRST_MAP)
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

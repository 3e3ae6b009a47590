"""The LMDB environments of this process: one per real path, whether it is read or written."""

import os
import threading
from pathlib import Path

import lmdb

from memofast.errors import MemofastError

_FIRST_MAP = 64 << 20
_open: dict[tuple[int, str], lmdb.Environment] = {}  # by process, so that a forked child gets its own
_lock = threading.Lock()


def _key(path: Path) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(path)


def for_reading(path: Path) -> lmdb.Environment:
    """The environment of the store at `path`, a writer's where this process writes it. Raises `MemofastError`."""
    key = _key(path)
    with _lock:
        if key not in _open:
            options = {"readonly": True, "max_readers": 1024, "max_spare_txns": 4, "readahead": False}
            try:
                try:
                    _open[key] = lmdb.open(key[1], **options)
                except (lmdb.ReadonlyError, lmdb.LockError):  # a read-only disk has no place for the lock file
                    _open[key] = lmdb.open(key[1], lock=False, **options)
            except lmdb.Error as error:
                raise MemofastError(f"store {path} cannot be read ({error}): restore it or write it anew") from None
        return _open[key]


def for_writing(path: Path) -> lmdb.Environment:
    """A writable environment; a reader's environment of the same store is closed. Raises `MemofastError`."""
    key = _key(path)
    with _lock:
        if key in _open:
            if not _open[key].flags()["readonly"]:
                raise MemofastError(f"store {path} is being written by this process already: finish that writer first")
            _open.pop(key).close()
        try:
            _open[key] = lmdb.open(key[1], map_size=_FIRST_MAP)
        except lmdb.Error as error:
            raise MemofastError(
                f"store {path} cannot be opened for writing ({error}): check the folder and free space"
            ) from None
        return _open[key]


def close(path: Path) -> None:
    with _lock:
        if environment := _open.pop(_key(path), None):
            environment.close()

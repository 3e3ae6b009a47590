"""The LMDB environments in which this process writes stores, one per real path. Who reads needs none, see `pages`."""

import os
import threading
from pathlib import Path

import lmdb

from memofast.errors import MemofastError

_FIRST_MAP = 64 << 20
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

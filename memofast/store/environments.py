"""The LMDB environments of this process: one per real path, whether it is read or written."""

import os
import threading
from pathlib import Path

import lmdb

from memofast.errors import MemofastError
from memofast.files import remove, reserve

_FIRST_MAP = 64 << 20
_LOCK_BYTES = 8192  # of LMDB's 126 readers
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

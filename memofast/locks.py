"""One process at a time writes an output folder or file: the kernel holds the lock, a file beside says for whom."""

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from memofast.errors import MemofastError
from memofast.files import as_json, cannot_write, sweep, writing
from memofast.signals import held

LOCK = ".memofast.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_DEEP = 3  # folders below an output folder in which something is put together: fold, seed, answers


@contextmanager
def lock_folder(folder: Path, needed: bool = True) -> Iterator[None]:
    """Hold an output folder, which is made; if it is empty in the end it goes again. What killed processes left
    half-made in it is removed. needed: False where another process of the same run holds it.

    Raises: `MemofastError` where another process holds it, saying which and since when, and where it cannot be written.
    """
    if not needed:
        yield
        return
    with _made(folder), _lock(folder / LOCK, folder):
        sweep(folder, deep=_DEEP)
        yield


def sweep_folders(parent: Path) -> None:
    """Remove the folders below `parent` in which killed processes left nothing but their lock and what they were
    putting together."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        with suppress(MemofastError, OSError):  # it is held, or no folder
            names = os.listdir(folder)
            if LOCK in names and all(name == LOCK or name.endswith(".partial") for name in names):
                with _lock(folder / LOCK, folder):  # it goes with the lock
                    sweep(folder)
                folder.rmdir()


@contextmanager
def lock_file(path: Path, parents: bool = False) -> Iterator[None]:
    """Hold an output file, as `lock_folder` does a folder. parents: make its folder as well."""
    if not parents and not path.absolute().parent.is_dir():
        raise MemofastError(f"{path} cannot be written: no folder {path.parent}; make it or choose another")
    with _made(path.parent) if parents else nullcontext(), _lock(path.with_name(f".{path.name}{LOCK}"), path):
        sweep(path.parent, path.name)
        yield


def entries(folder: Path) -> list[str]:
    """The names in a folder but for that of its lock, sorted; none where it is not there."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK) if folder.is_dir() else []


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; what is still empty in the end goes again."""
    above = [folder, *folder.parents]
    missing = [one for one in above if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemofastError(f"{folder} cannot be made ({error.strerror}): choose another folder") from error
    try:
        yield
    finally:
        for one in missing:
            with suppress(OSError):  # it is not empty
                one.rmdir()


@contextmanager
def _lock(lock: Path, what: Path) -> Iterator[None]:
    with held(str(lock)):
        descriptor = _take(lock, what)
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()  # before it is let go, so that nobody takes a file that is no longer there
            os.close(descriptor)


def _take(lock: Path, what: Path) -> int:
    """The descriptor of a lock file that this process holds until it closes it or ends."""
    while True:
        with writing(what):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _ask_kernel(descriptor, what)
            if _lies_at(descriptor, lock):
                with suppress(OSError):  # the disk is full: nobody learns whose it is
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, _about_this_process(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lies_at(descriptor: int, lock: Path) -> bool:
    """Whether the open file is still the lock: a holder that ends removes it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        return False


def _ask_kernel(descriptor: int, what: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MemofastError(
            f"{what} is in use by {_holder(descriptor)}: wait until it ends, or choose another"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise cannot_write(what, error) from error
        print(f"note: {what} lies on a disk without locks; let no other process write it", file=sys.stderr)


def _about_this_process() -> bytes:
    command = " ".join(shlex.join(sys.orig_argv[1:] or sys.argv).split())
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    about = {"process": os.getpid(), "host": socket.gethostname(), "since": since, "command": command[:300]}
    return as_json(about).encode()


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 1 << 16, 0))
        told = "process {process} on {host} since {since} ({command})".format(**about)
        return " ".join(told.split())
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"

"""Files that are replaced as a whole or not at all, and files that are not what their name says."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from memofast.errors import MemofastError

_TEMPORARY = re.compile(r"\.(.+)\.([1-9]\d*)\.partial", re.DOTALL)


def temporary_of(path: Path) -> Path:
    """Beside `path`, where this process puts together the file or folder that will stand there."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def sweep(folder: Path, name: str | None = None, deep: int = 0) -> None:
    """Remove what killed processes were putting together in a folder and `deep` below it; name: of one result alone,
    and of what stands beside it under this name and a suffix."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return  # there is nothing
    for entry in entries:
        found = _TEMPORARY.fullmatch(entry.name)
        own = found and (name in (None, found[1]) or found[1].startswith(f"{name}."))
        if own and _gone(int(found[2])):
            remove(Path(entry.path))
        elif deep and entry.is_dir(follow_symlinks=False):
            sweep(Path(entry.path), name, deep - 1)


def _gone(process: int) -> bool:
    """Whether a process has ended; this one has nothing under way when it sweeps."""
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        pass  # somebody else's
    return False


def remove(path: Path) -> None:
    """Remove a file or folder as far as the disk lets it, which may be what it is removed for."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def cannot_write(path: Path, error: OSError) -> MemofastError:
    why = error.strerror or str(error)
    return MemofastError(f"{path} cannot be written ({why}): free space or choose another folder, and run again")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises: `MemofastError` naming `path` where the disk is full or lets nothing be written."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_file(path: Path, data: bytes, parents: bool = False) -> None:
    """Write `path` so that it holds either its old contents or `data`, never a part. parents: make its folder as well.

    Raises: `MemofastError` where the disk is full or the folder cannot be written.
    """
    temporary = temporary_of(path)
    with writing(path):
        try:
            if parents:
                path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            remove(temporary)
            raise


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal. Raises: `OSError`."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files and links in a folder and all below it, which others may add to and remove from meanwhile."""
    for place, folders, names in os.walk(folder):
        for name in (*names, *(one for one in folders if os.path.islink(os.path.join(place, one)))):
            with suppress(OSError):  # it has gone
                yield (path := Path(place, name)), path.lstat()


def name_unless_there(path: Path, to: Path) -> None:
    """Give a file another name, of which its own may be removed; a file that has that name, as of another process, is
    left. Raises: `OSError`."""
    try:
        os.link(path, to)
    except FileExistsError:
        pass
    except OSError:  # the disk has no hard links
        path.rename(to)


def sync_entry(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(path: Path, size: int = 1) -> None:
    """Take the disk's room for a file, of `size` bytes at least, now: a memory map of holes that later meets a full
    disk ends the process.

    Raises: `OSError` where there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, max(os.fstat(file.fileno()).st_size, size))


def write_json(path: Path, value: Any) -> None:
    replace_file(path, (as_json(value, indent=2) + "\n").encode())


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that UTF-8 can hold: letters as they are, escaped where a path is no UTF-8."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    return text


_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def csv_table(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV whose text no spreadsheet runs as a formula: an apostrophe goes before a cell that begins as one.

    Numbers stay numbers, negative ones too. Cells with a comma, quote, line feed or carriage return are quoted.
    Source: OWASP, CSV Injection.
    """
    lines = []
    for row in rows:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerow(map(_cell, row))  # which quotes what holds either of both
        lines.append(text.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def _cell(value: Any) -> Any:
    runs = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if runs else value


class NestedTooDeeply(ValueError):
    """JSON with more brackets within each other than Python reads."""


def parse_json(text: str, **options: Any) -> Any:
    """As `json.loads`. Raises: `ValueError` where it is no JSON, `NestedTooDeeply` among them."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise NestedTooDeeply("nested too deeply") from None


def read_json(path: Path) -> Any:
    """The JSON of a file in UTF-8. Raises: `OSError`, and `ValueError` as `parse_json`."""
    return parse_json(path.read_text(encoding="utf-8"))


def refuse_pointer(path: Path) -> None:
    """Raises: `MemofastError` where `path` holds a Git LFS pointer in place of its contents."""
    try:
        with path.open("rb") as file:
            head = file.read(200)
    except OSError:
        return  # who opens it says so
    if head.startswith((b"version https://git-lfs.", b"version https://hawser.")):
        size = re.search(rb"^size (\d{1,19})$", head, re.MULTILINE)
        stands_for = f"of {int(size[1])} bytes " if size else ""
        raise MemofastError(
            f"{path} is a Git LFS pointer, not the file {stands_for}that it stands for; run `git lfs pull` in its "
            "folder or download the file itself"
        )


def refuse_bomb(path: Path) -> None:
    """For files of torch, which never compresses. Raises: `MemofastError` where `path` is a zip archive whose parts
    declare more bytes than the file has."""
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(part.file_size for part in archive.infolist())
        size = path.stat().st_size
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        return  # another kind of file; who opens it says so
    if declared > size:
        raise MemofastError(
            f"{path} has {size} bytes and unpacks to {declared}, which torch never writes; get the file from its source"
        )

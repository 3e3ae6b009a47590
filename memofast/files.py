"""Files that are replaced as a whole or not at all, and files that are not what their name says."""

import json
import os
import re
from pathlib import Path
from typing import Any

from memofast.errors import MemofastError


def replace_file(path: Path, data: bytes, parents: bool = False) -> None:
    """Write `path` so that it holds either its old contents or `data`, never a part. parents: make its folder as well.

    Raises: `MemofastError` where the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MemofastError(
            f"{path} cannot be written ({error.strerror}): free space or choose another folder, and run again"
        ) from error


def write_json(path: Path, value: Any) -> None:
    replace_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON of a file. Raises: `OSError`, or `ValueError` where it is no JSON or nested deeper than Python reads."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


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

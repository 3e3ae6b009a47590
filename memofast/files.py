"""Files that are replaced as a whole or not at all."""

import json
import os
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
    replace_file(path, (as_json(value, indent=2) + "\n").encode())


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that UTF-8 can hold: letters as they are, escaped where a path is no UTF-8."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    return text

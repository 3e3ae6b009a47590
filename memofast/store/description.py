"""What lies beside the LMDB data: `meta.json` and the index of ids, each replaced as a whole or not at all."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.npz import npz_arrays

META = "meta.json"
INDEX = "index.npz"
FORMAT = 1


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta.json` of the store at `path`. Raises `MemofastError` where there is no store or a newer one."""
    if not (path / META).is_file():
        raise MemofastError(f"no store at {path} ({META} is missing): check the path")
    try:
        meta = json.loads((path / META).read_text())
        if meta["format"] != FORMAT:
            raise MemofastError(f"store {path} has format {meta['format']}, this memofast reads {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise MemofastError(f"{path / META} is not a store's description ({error}): restore or write it anew") from None
    return meta


def write_index(path: Path, ids: list[str], rows: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, ids=np.frombuffer("\n".join(ids).encode(), np.uint8), rows=rows.astype(np.int32))
    replace_file(path / INDEX, buffer.getvalue())


def read_index(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids in key order and their row counts [n] int32 of a finished store."""
    try:
        index = npz_arrays(path / INDEX, ("ids", "rows"))
        text, rows = bytes(index["ids"]).decode(), index["rows"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise MemofastError(f"{path / INDEX} cannot be read ({error}): restore it or write the store anew") from None
    return (text.split("\n") if len(rows) else []), rows

"""What lies beside the LMDB data: `meta.json` and the index of ids, each replaced as a whole or not at all."""

import io
import operator
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.npz import npz_arrays
from memofast.schemas import Count, Name, Schema, fault_of, read_described
from memofast.store.pages import DATA
from memofast.store.record import MODALITY_VALUES

META = "meta.json"
INDEX = "index.npz"
FORMAT = 1
LONGEST_ID = 511  # bytes of a key that LMDB takes
_REMEDY = "restore it or write the store anew"
_FLOATS = ("float16", "float32")
RAW = ("uint8", "int16")  # pixels of faces, samples of sound: what a model's own networks make features of
_WIDEST = 1 << 24  # values of a row
# kind -> column -> its types and its width; None: any from 1
_COLUMNS = {
    "features": {
        "rows": ((*_FLOATS, *RAW), None),
        "times": (("float32",), 1),
        "confidence": (_FLOATS, 1),
        "soft_labels": (_FLOATS, None),
    },
    "text": {
        "tokens": (("int32",), 1),
        "words": (("int32",), 1),
        "lexicon": (("int32",), 1),
        "part_of_speech": (("int32",), 1),
        "polarity": (("int32",), 1),
        "utf8": (("uint8",), 0),
        "label": (("int64",), 0),
        "emotions": (("float32",), 0),
        "value": (("float32",), 0),
        **{column: (("float32",), 0) for column in MODALITY_VALUES.values()},
    },
}
_ALWAYS = {"features": ("rows",), "text": ("tokens", "words")}
_WITH_CLASSES = ("soft_labels", "label", "emotions", "lexicon", "part_of_speech", "polarity")

_Width = Annotated[int, Field(ge=0, le=_WIDEST)]
_Column = Annotated[tuple[str, _Width], Field(strict=False)]  # a list in JSON
_Token = Annotated[int, Field(ge=0, lt=1 << 31)]


class _Counts(Schema):
    records: Count
    rows: Count


class _SpecialTokens(Schema):
    cls: _Token
    sep: _Token


class _Meta(Schema):
    format: int
    kind: Literal["features", "text"]
    complete: bool
    columns: dict[Name, _Column]
    classes: dict[Name, Annotated[list[Name], Field(min_length=1)]]
    extractor: Name = ""
    fingerprint: Name = ""
    normalisation: Name = ""
    source: str = ""
    licence: str = ""
    value: Name = ""
    special_tokens: _SpecialTokens | None = None
    labeller: dict[str, Name] = Field(default_factory=dict)
    counts: _Counts | None = None
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "_Meta":
        known = _COLUMNS[self.kind]
        if missing := [name for name in _ALWAYS[self.kind] if name not in self.columns]:
            raise ValueError(f"a store of {self.kind} without {missing[0]}")
        for name, (dtype, width) in self.columns.items():
            dtypes, fixed = known.get(name, ((), 0))
            if dtype not in dtypes or width != (max(1, width) if fixed is None else fixed):
                raise ValueError(f"no column {name} of {self.kind} is {width} values of {dtype}")
        for name in _WITH_CLASSES:
            if (name in self.columns) != (name in self.classes):
                raise ValueError(f"column {name} and the names of its classes go together")
        if self.kind == "features" and self.columns.get("soft_labels", ("", 0))[1] != len(
            self.classes.get("soft_labels", ())
        ):
            raise ValueError("as many soft_labels as classes")
        if self.kind == "text" and self.special_tokens is None:
            raise ValueError("a store of text without special_tokens")
        if self.complete and (self.counts is None or self.digest is None):
            raise ValueError("a complete store without counts and digest")
        return self


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta.json` of the store at `path`. Raises `MemofastError` where there is no store, or a damaged or newer
    one."""
    if not os.path.isfile(path / META):
        raise MemofastError(f"no store at {path} ({META} is missing): check the path")
    meta = read_described(path / META, _Meta, "a store's description", _REMEDY)
    if meta["format"] != FORMAT:
        raise MemofastError(f"store {path} has format {meta['format']}, this memofast reads {FORMAT}")
    return meta


def check_meta(path: Path, meta: dict[str, Any]) -> None:
    """Raises: `MemofastError` where what is to be written could not be read again."""
    if fault := fault_of(meta, _Meta):
        raise MemofastError(f"store {path} cannot be described ({fault}): name it otherwise")


def write_index(path: Path, ids: list[str], rows: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, ids=np.frombuffer("\n".join(ids).encode(), np.uint8), rows=rows.astype(np.int32))
    replace_file(path / INDEX, buffer.getvalue())


def read_index(path: Path, meta: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
    """Ids in key order and their row counts [n] int32 of a finished store. Raises: `MemofastError` where the index is
    damaged or another store's."""
    file = path / INDEX
    try:
        if not os.path.isfile(file):
            raise ValueError("it is missing")
        index = npz_arrays(file, ("ids", "rows"), most=file.stat().st_size)  # written without compression
        ids, rows = _ids(index["ids"]), index["rows"]
        _check_rows(ids, rows, meta, (path / DATA).stat().st_size)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise MemofastError(f"{file} cannot be read ({error}): {_REMEDY}") from None
    return ids, rows


def _ids(text: np.ndarray) -> list[str]:
    if text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError("its ids are no text")
    if not len(text):
        return []
    breaks = np.flatnonzero(text == ord("\n"))
    sizes = np.diff(breaks, prepend=-1, append=len(text)) - 1
    if not 0 < sizes.min() <= sizes.max() <= LONGEST_ID:
        raise ValueError(f"an id has 1 to {LONGEST_ID} bytes")
    ids = text.tobytes().decode().split("\n")
    if not all(map(operator.lt, ids, ids[1:])):  # as the bytes of their keys
        raise ValueError("its ids are not in order, each once")
    return ids


def _check_rows(ids: list[str], rows: np.ndarray, meta: Mapping[str, Any], stored: int) -> None:
    """stored: bytes of the data file, which bound what a batch may take."""
    if rows.dtype != np.int32 or rows.shape != (len(ids),):
        raise ValueError(f"{len(ids)} ids, but row counts {list(rows.shape)} of {rows.dtype}")
    counts = meta["counts"]
    if len(ids) != counts["records"]:
        raise ValueError(f"{len(ids):,} ids, {META} says {counts['records']:,}")
    total = int(rows.sum(dtype=np.int64))
    if (len(rows) and rows.min() < 0) or total != counts["rows"]:
        raise ValueError(f"{total:,} rows, {META} says {counts['rows']:,}")
    width = sum(np.dtype(dtype).itemsize * width for dtype, width in meta["columns"].values())
    if total * width > stored:
        raise ValueError(f"{total:,} rows of {width:,} bytes in {stored:,} bytes")

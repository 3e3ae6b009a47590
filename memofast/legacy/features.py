"""Feature databases: faces, speech or pictures of faces by clip, and the side file that says how many rows each has."""

import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.files import parse_json
from memofast.legacy.databases import Counts, Database, disagree
from memofast.legacy.values import MOST_FEATURES, Damaged, known_arrays, unpack
from memofast.npz import npz_arrays
from memofast.prepare.sources.npz import check_columns, columns_at

_COLUMNS = ("features", "confidence", "soft_labels", "frame_idxs")
_COMPRESSED = "_compressed"
_LOOKED_AT = 25  # records, of which one may be of another kind


@dataclass(frozen=True)
class Layout:
    """What every record of a database has. shape: of one row of features. widths: name and width of each column, as in
    a store."""

    shape: tuple[int, ...]
    dtype: str
    widths: tuple[tuple[str, int], ...]

    @property
    def columns(self) -> dict[str, int]:
        return dict(self.widths)

    def __str__(self) -> str:
        beside = ", ".join(name for name, _ in self.widths if name != "rows") or "nothing"
        return f"{_sides(self.shape)} {self.dtype} values with {beside}"

    def empty(self, rows: int = 0) -> dict[str, np.ndarray]:
        """Columns of rows of zeros."""
        return {
            name: np.zeros((rows, width) if name in ("rows", "soft_labels") else rows, self.dtype)
            for name, width in self.columns.items()
        }


class FeatureDatabase(Database):
    """A folder `feat_*`, or the folder that holds it alone. rows_of: rows of each clip by its file's name. rounded: how
    many clips were read whose numbers are longer than the store's."""

    def __init__(self, path: Path, rate: float):
        """rate: rows a second, which turns `frame_idxs` into times. Raises: `MemofastError`, also where records,
        `__keys__` and side file do not fit one another."""
        super().__init__(_folder_of(path))
        self.rate, self.rounded = rate, 0
        self.compressed = self.path.name.endswith(_COMPRESSED)
        self.rows_of = self.side_file(self._side_file(), Counts, "numbers of rows")
        there = set(self.names)
        if difference := there ^ set(self.rows_of):
            raise disagree(self, "the records", self._side_file().name, difference)
        keys = self.list_of_keys()
        if keys is None:
            raise MemofastError(f"database {self.path} has no __keys__, so it was not finished: build it anew")
        try:
            listed = set(map(str, parse_json(keys.decode())))
        except (ValueError, TypeError):
            raise MemofastError(f"database {self.path}: its __keys__ are no list of names; build it anew") from None
        if difference := there ^ listed:
            raise disagree(self, "the records", "__keys__", difference)
        self.layout = self._layout()

    def _side_file(self) -> Path:
        """`feat_...` becomes `nbb_...json`; a compressed database shares the one of its plain twin."""
        name = f"nbb{self.path.name.removeprefix('feat')}.json"
        beside = self.path.with_name(name)
        if self.compressed and not beside.is_file():
            return self.path.with_name(name.replace(f"{_COMPRESSED}.json", ".json"))
        return beside

    def _layout(self) -> Layout:
        """The commonest of the first sound records with rows, else of those without. Raises: `MemofastError` where
        there is none."""
        found: Counter[Layout] = Counter()
        for name in sorted(self.names, key=lambda name: not self.rows_of[name]):
            if found.total() == _LOOKED_AT or (found and not self.rows_of[name]):
                break
            try:
                columns, shape = self._columns(name)
            except Damaged:
                continue
            widths = tuple((one, values.shape[1] if values.ndim == 2 else 1) for one, values in columns.items())
            found[Layout(shape, "float16" if columns["rows"].dtype.itemsize == 2 else "float32", widths)] += 1
        if not found:
            raise MemofastError(f"database {self.path} has no record that can be read: check what it is")
        return found.most_common(1)[0][0]

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Columns of one clip: `rows` [n, width], and what there is of `confidence`, `soft_labels`, `times`.

        Raises: `Damaged`; `MemofastError` for rows of another width, or more or fewer than the side file says.
        """
        columns, shape = self._columns(name)
        if not len(columns["rows"]) and not self.rows_of[name]:
            return self.layout.empty()
        if shape != self.layout.shape:
            raise MemofastError(
                f"database {self.path} mixes widths: rows of {_sides(shape)} in {name!r}, of "
                f"{_sides(self.layout.shape)} before; build it anew from features of one kind"
            )
        if len(columns["rows"]) != self.rows_of[name]:
            raise MemofastError(
                f"database {self.path}: {name!r} has {len(columns['rows'])} rows, {self._side_file().name} says "
                f"{self.rows_of[name]}; restore the file that is wrong, or build the database anew"
            )
        widths = self.layout.columns
        if columns.keys() != widths.keys():
            raise Damaged(f"without the columns {', '.join(widths)}, or with others")
        if self.layout.dtype == "float16" and columns["rows"].dtype.itemsize != 2:
            raise Damaged("of another number type than the others")
        if any(values.shape[1:] not in ((), (widths[one],)) for one, values in columns.items()):
            raise Damaged("with soft_labels of other classes than the others")
        with np.errstate(over="ignore"):
            finite = all(np.isfinite(values.astype(self.layout.dtype)).all() for values in columns.values())
        if not finite:
            raise Damaged("with values that are not finite")
        self.rounded += any(values.dtype.itemsize > 4 for values in columns.values())
        return columns

    def _columns(self, name: str) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
        """Columns of a record, and the shape of one row of features before it was laid flat."""
        value = self.value(name)
        if len(value) > MOST_FEATURES:
            raise Damaged(f"of over {MOST_FEATURES >> 20} MiB")
        found = _from_npz(value) if self.compressed else known_arrays(unpack(bytes(value)), _COLUMNS)
        if "features" not in found:
            raise Damaged("without features")
        features = found["features"]
        if features.shape == (0,):  # what NumPy makes of an empty list
            features = features.reshape(0, 0)
        shape = features.shape[1:]
        if len(shape) > 1:  # pictures
            features = features.reshape(len(features), int(np.prod(shape)))
        if not len(features):
            found = {one: values[:0] for one, values in found.items() if values.ndim}
        values = found | {"features": features}
        try:
            check_columns(values)
        except ValueError as error:
            raise Damaged(f"with {error}") from None
        return columns_at(values, slice(None), self.rate), shape


def _folder_of(path: Path) -> Path:
    """The folder itself, or the one database in it."""
    inside = sorted(path.glob("feat*/data.mdb"))
    if not path.name.startswith("feat") and inside:
        if len(inside) > 1:
            names = ", ".join(one.parent.name for one in inside)
            raise MemofastError(f"{path} has several databases, {names}: name the one that is meant")
        return inside[0].parent
    return path.parent / path.name  # without a slash at its end


def _from_npz(value: memoryview) -> dict[str, np.ndarray]:
    try:
        return npz_arrays(io.BytesIO(value), _COLUMNS, MOST_FEATURES)
    except (OSError, ValueError, zipfile.BadZipFile):
        raise Damaged("that are no npz of numbers") from None


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "no"


def in_key_order(databases: Sequence[FeatureDatabase], wanted: set[str]) -> Iterator[tuple[FeatureDatabase, str]]:
    """Every wanted file with the database that holds it, in the order in which they lie there."""
    for database in databases:
        for name in database.names:
            if name in wanted:
                yield database, name

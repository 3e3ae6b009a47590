"""Reading stores: counts from the index, rows of a batch from one snapshot of the data file."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memofast import _C
from memofast.errors import MemofastError
from memofast.store import description, record
from memofast.store.pages import Pages, Snapshot


class Store:
    """One store, open for reading; `FeatureStore.open` and `TextStore.open` make them.

    meta: contents of `meta.json`. complete: False where the writer did not come to its end; such a store reads as far
    as it got.
    ids: sample ids in key order. lengths [n] int32: their row counts, known without reading records.
    """

    kind: str
    of_rows: str  # a column that every record has, with a value or more for each row

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.meta: dict[str, Any] = description.read_meta(self.path)
        if self.meta["kind"] != self.kind:
            raise MemofastError(f"store {self.path} holds {self.meta['kind']}, not {self.kind}: check the path")
        self.complete: bool = self.meta["complete"]
        self.columns: dict[str, tuple[str, int]] = {name: tuple(c) for name, c in self.meta["columns"].items()}
        self.classes: dict[str, list[str]] = self.meta["classes"]
        self._located: tuple[Snapshot, np.ndarray] | None = None
        self._pages = Pages(self.path) if self.complete else Pages.begun(self.path)
        self.ids, self.lengths = description.read_index(self.path, self.meta) if self.complete else self._scan()

    @classmethod
    def open(cls, path: str | Path):
        """Raises: `MemofastError` where there is no store, a store of another kind, or one that cannot be read."""
        return cls(path)

    def __reduce__(self):
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows_of(self) -> dict[str, int]:
        """Row count by id."""
        return dict(zip(self.ids, self.lengths.tolist(), strict=True))

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Index into `ids` and `lengths` by id."""
        return {id: place for place, id in enumerate(self.ids)}

    def _scan(self) -> tuple[list[str], np.ndarray]:
        if self._pages is None:
            return [], np.zeros(0, np.int32)

        def count(snapshot: Snapshot) -> list[tuple[str, int]]:
            return [(id, record.row_count(value, self._where(id))) for id, value in snapshot.records()]

        found = self._pages.read(count)
        return [id for id, _ in found], np.array([rows for _, rows in found], np.int64)

    def _where(self, id: str) -> str:
        return f"record {id!r} of store {self.path}"

    def read(self, id: str) -> dict[str, np.ndarray]:
        """All columns of one sample, copied: name -> [rows, width] or 1-d array. Raises: `MemofastError` for an id that
        is not there and a record that is not as store and index say."""
        if self._pages is None:
            raise self._missing(id)
        found = self._pages.read(lambda snapshot: record.decode(self._value(snapshot, id), self._where(id)))
        if fault := self._fault(found, self.rows_of.get(id)):
            raise MemofastError(f"{self._where(id)} has {fault}: restore the store or write it anew")
        return found

    def _fault(self, found: Mapping[str, np.ndarray], rows: int | None) -> str | None:
        """What a record has or lacks, in words; None where it is sound. rows: of the index."""
        there = len(found.get(self.of_rows, ()))
        if rows is not None and self.of_rows in found and there != rows:
            return f"{there} rows, its index says {rows}"
        for name, (dtype, width) in self.columns.items():
            if not record.is_known(name):
                continue
            values = found.get(name)
            single = len(self.classes[name]) if name == "emotions" else 1
            shape = (there, width) if width > 1 else (there,) if width else (single,)
            if values is None or values.dtype != dtype or (name != "utf8" and values.shape != shape):
                return f"no column {name} of width {width}"
        return None

    def _value(self, snapshot: Snapshot, id: str) -> memoryview:
        offset, size = snapshot.find([id])[0].tolist()
        if offset < 0:
            raise self._missing(id)
        return snapshot.map[offset : offset + size]

    def _missing(self, id: str) -> MemofastError:
        return MemofastError(f"id {id!r} is not in store {self.path}: prepare it or take it out of the split")

    def gather(
        self,
        places: np.ndarray,
        rows: np.ndarray,
        first_row: np.ndarray,
        columns: Sequence[tuple[str, int, int, int]],
    ) -> None:
        """Copy columns of many records into the rows of a batch, in C++ without the GIL.

        Args:
            places: [B] int64 indices into `ids`. rows, first_row [B] int64: row counts the records must have; where
            they start.
            columns: (name, padded width, type id, address of the output), see `memofast.store.memory`.
        Raises: `MemofastError` for an id that is missing or a record that is corrupt or has other rows.
        """
        if not len(places):
            return
        wanted = [
            (record.NAMES[name], self.columns[name][1], padded, dtype, address)
            for name, padded, dtype, address in columns
        ]

        def copy(snapshot: Snapshot) -> int:
            addresses, sizes = self._locate(snapshot, places)
            return _C.gather_records(
                addresses.ctypes.data, sizes.ctypes.data, rows.ctypes.data, first_row.ctypes.data, len(places), wanted
            )

        bad = self._pages.read(copy)
        if bad >= 0:
            self._explain(self.ids[places[bad]], int(rows[bad]))

    def _locate(self, snapshot: Snapshot, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Addresses and sizes [B] int64 of records, valid as long as the snapshot lives; what was looked up once in it
        is kept."""
        located = self._located
        if located is None or located[0] is not snapshot:
            located = self._located = (snapshot, np.zeros((2, len(self.ids)), np.int64))
        known = located[1]
        new = places[known[0, places] == 0]
        if len(new):
            found = snapshot.find([self.ids[place] for place in new.tolist()])
            if len(missing := np.flatnonzero(found[:, 0] < 0)):
                raise self._missing(self.ids[new[missing[0]]])
            known[1, new], known[0, new] = found[:, 1], snapshot.address + found[:, 0]
        return known[0, places], known[1, places]

    def _explain(self, id: str, rows: int) -> None:
        found = len(self.read(id)[self.of_rows])
        if found != rows:
            raise MemofastError(
                f"{self._where(id)} has {found} rows, its index says {rows}: restore the store or write it anew"
            )
        raise MemofastError(f"{self._where(id)} is corrupt: restore the store or write it anew")


class FeatureStore(Store):
    """A store of feature rows. width: values per row as stored."""

    kind = "features"
    of_rows = "rows"

    @property
    def width(self) -> int:
        return self.columns["rows"][1]

    @property
    def dtype(self) -> str:
        return self.columns["rows"][0]


class TextStore(Store):
    """A store of texts; rows include [CLS] and [SEP]."""

    kind = "text"
    of_rows = "tokens"

    def _fault(self, found: Mapping[str, np.ndarray], rows: int | None) -> str | None:
        return super()._fault(found, rows) or self.value_fault(found)

    def value_fault(self, columns: Mapping[str, np.ndarray]) -> str | None:
        """The first token or class in these columns that there cannot be, in words; None where there is none."""
        for name, lowest in (("tokens", 0), ("label", -1), ("lexicon", -1), ("part_of_speech", 0), ("polarity", 0)):
            values, most = columns.get(name), len(self.classes.get(name, ())) or np.inf
            if values is not None and len(values) and not lowest <= values.min() <= values.max() < most:
                return f"{name} {values[(values < lowest) | (values >= most)][0]}"
        return None

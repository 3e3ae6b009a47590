"""Writing stores: records go out in batches, a killed writer resumes, and what is finished is described by
`meta.json`."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from memofast.errors import MemofastError
from memofast.files import write_json
from memofast.store import description, environments, record
from memofast.store.description import LONGEST_ID
from memofast.store.pages import DATA, Pages

_BATCH_RECORDS = 1000
_BATCH_BYTES = 32 << 20
_SETTINGS = (
    "kind",
    "columns",
    "classes",
    "extractor",
    "fingerprint",
    "normalisation",
    "special_tokens",
    "labeller",
    "value",
)


def id_fault(id: str) -> str | None:
    """What keeps a name from being the id of a sample, None where nothing does."""
    try:
        size = len(id.encode())
    except UnicodeEncodeError:
        return "it is no UTF-8"
    if not 0 < size <= LONGEST_ID:
        return f"it has {size} bytes"
    return "it has a line break" if "\n" in id else None


class StoreWriter:
    """Writes one store; use `FeatureWriter` or `TextWriter`.

    As a context manager it finishes the store on a clean exit. After an exception, or a kill at any moment, the store
    opens as far
    as it got, and a writer of the same settings goes on: `done(id)` says which ids need no work.
    """

    def __init__(self, path: str | Path, meta: dict[str, Any]):
        self.path = Path(path)
        self._meta = {"format": description.FORMAT, **meta, "complete": False}
        description.check_meta(self.path, self._meta)
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        self._finished = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MemofastError(f"store {self.path} cannot be made ({error.strerror}): choose another folder") from None
        if (self.path / description.META).exists():
            self._continue()
        else:
            write_json(self.path / description.META, self._meta)
        self._ids = self._written()  # and with it every page that LMDB will follow is known to be sound
        self._environment = environments.for_writing(self.path)

    def _continue(self) -> None:
        there = description.read_meta(self.path)
        self._check_settings(self.path, there)
        self._finished = there["complete"]

    def _written(self) -> set[str]:
        if (pages := Pages.begun(self.path)) is None:
            if self._finished:
                raise MemofastError(f"{self.path / DATA} is missing: restore the store or write it anew")
            return set()
        snapshot = pages.snapshot()
        snapshot.check_free_pages()
        return {id for id, _ in snapshot.records()}

    def _check_settings(self, path: Path, there: Mapping[str, Any]) -> None:
        for name in _SETTINGS:
            if there.get(name) != self._meta.get(name):
                raise MemofastError(
                    f"store {path} holds {name} {there.get(name)!r}, not {self._meta.get(name)!r}: "
                    "one store holds one kind of record, so write to another folder"
                )

    def __len__(self) -> int:
        return len(self._ids)

    def done(self, id: str) -> bool:
        """Whether the store holds this id, from this run or an earlier one."""
        return id in self._ids

    def _put(self, id: str, rows: int, columns: Mapping[str, np.ndarray]) -> None:
        if fault := id_fault(id):
            raise MemofastError(f"id {id!r}: an id has 1 to 511 bytes and no line break; {fault}")
        if id in self._ids:
            raise MemofastError(f"id {id!r} is in store {self.path} already: give each sample an id of its own")
        self._add(id, record.encode(rows, columns))

    def _add(self, id: str, value: bytes) -> None:
        if self._finished:
            write_json(self.path / description.META, self._meta)
            self._finished = False
        self._ids.add(id)
        self._pending.append((id.encode(), value))
        self._pending_bytes += len(value)
        if len(self._pending) >= _BATCH_RECORDS or self._pending_bytes >= _BATCH_BYTES:
            self.commit()

    def copy(self, other: "StoreWriter", ids: Iterable[str]) -> None:
        """Add records of another store byte for byte; ids that it lacks or that are here already are passed over.

        Raises: `MemofastError` where the two stores hold different kinds of records.
        """
        self._check_settings(other.path, other._meta)
        wanted = [id for id in dict.fromkeys(ids) if id in other._ids and id not in self._ids]
        snapshot = Pages(other.path).snapshot()
        for id, (offset, size) in zip(wanted, snapshot.find(wanted).tolist(), strict=True):
            if offset >= 0:  # else the other has not committed it
                self._add(id, bytes(snapshot.map[offset : offset + size]))

    def commit(self) -> None:
        """Bring what was put so far to the disk. Raises `MemofastError` where it does not fit; nothing committed is
        lost."""
        while self._pending:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                self._pending, self._pending_bytes = [], 0
            except lmdb.MapFullError:
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)
            except (lmdb.Error, OSError) as error:
                kept = len(self._ids) - len(self._pending)
                self._ids -= {key.decode() for key, _ in self._pending}
                self._pending, self._pending_bytes = [], 0
                raise MemofastError(
                    f"store {self.path} cannot be written ({error}); {kept} records are kept: free space and run "
                    "again to go on"
                ) from None

    def finish(self) -> dict[str, Any]:
        """Write the index and the final `meta.json`, with counts and digest. Returns its contents; does nothing the
        second time."""
        self.commit()
        if not self._finished:
            ids, rows, digest = self._survey()
            description.write_index(self.path, ids, rows)
            counts = {"records": len(ids), "rows": int(rows.sum())}
            write_json(
                self.path / description.META, self._meta | {"complete": True, "counts": counts, "digest": digest}
            )
            self._finished = True
        return description.read_meta(self.path)

    def _survey(self) -> tuple[list[str], np.ndarray, str]:
        """Ids in key order, their row counts, and the digest: BLAKE2b-256 of key length, key, value length, value."""
        ids, rows, digest = [], [], hashlib.blake2b(digest_size=32)
        for id, value in Pages(self.path).snapshot().records():
            key = id.encode()
            ids.append(id)
            rows.append(record.row_count(value, f"record {id!r} of store {self.path}"))
            digest.update(len(key).to_bytes(8, "little") + key + len(value).to_bytes(8, "little"))
            digest.update(value)
        return ids, np.array(rows, np.int64), digest.hexdigest()

    def close(self) -> None:
        environments.close(self.path)

    def __enter__(self):
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
            else:
                self.commit()
        finally:
            self.close()


class FeatureWriter(StoreWriter):
    """Writes a store of feature rows: faces or speech.

    Args:
        path: folder of the store, made where it is missing.
        width: values per row.
        columns: which of `times`, `confidence` and `soft_labels` every record has beside `rows`.
        classes: names of the soft labels' classes; needed for `soft_labels`.
        dtype: `float16` or `float32`, the stored type of rows, confidence and soft labels; times are float32 seconds.
        `uint8` or `int16` for raw rows, pixels of a face or samples of sound, beside which the rest is float16.
        extractor, fingerprint, normalisation, source, licence: where the rows come from, kept in `meta.json`; labeller:
            what gave the soft labels, where that is something else: its name and fingerprint.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        *,
        columns: Iterable[str] = (),
        classes: Sequence[str] = (),
        dtype: str = "float16",
        extractor: str = "",
        fingerprint: str = "",
        normalisation: str = "",
        source: str = "",
        licence: str = "",
        labeller: Mapping[str, str] | None = None,
    ):
        columns = set(columns)
        if wrong := columns - {"times", "confidence", "soft_labels"}:
            raise MemofastError(f"store {path}: a feature store has no column {sorted(wrong)[0]!r}")
        if ("soft_labels" in columns) != bool(classes):
            raise MemofastError(f"store {path}: soft_labels and the names of their classes go together")
        if dtype not in ("float16", "float32", *description.RAW) or width < 1:
            raise MemofastError(
                f"store {path}: rows need a width of at least 1 and dtype float16 or float32, or as raw ones uint8 or "
                "int16"
            )
        beside = "float16" if dtype in description.RAW else dtype
        types = {"rows": [dtype, width], "times": ["float32", 1], "confidence": [beside, 1]}
        types["soft_labels"] = [beside, len(classes)]
        self.columns = {name: types[name] for name in types if name == "rows" or name in columns}
        super().__init__(
            path,
            {
                "kind": "features",
                "columns": self.columns,
                "classes": {"soft_labels": list(classes)} if classes else {},
                "extractor": extractor,
                "fingerprint": fingerprint,
                "normalisation": normalisation,
                "source": source,
                "licence": licence,
            }
            | ({"labeller": dict(labeller)} if labeller else {}),
        )

    def put(
        self,
        id: str,
        rows: np.ndarray,
        *,
        times: np.ndarray | None = None,
        confidence: np.ndarray | None = None,
        soft_labels: np.ndarray | None = None,
    ) -> None:
        """Add one sample.

        Args: rows [n, width] float, or of raw rows whole numbers of the stored type, n may be 0; times [n] seconds;
            confidence [n]; soft_labels [n, classes].
        Raises: `MemofastError` for another width, a column too many or too few, an id that is there, values that are
            not finite or beyond the stored type.
        """
        given = {"rows": rows, "times": times, "confidence": confidence, "soft_labels": soft_labels}
        given = {name: np.asarray(value) for name, value in given.items() if value is not None}
        if given.keys() != self.columns.keys():
            raise MemofastError(
                f"id {id!r}: store {self.path} has columns {', '.join(self.columns)}, the sample has {', '.join(given)}"
            )
        count = len(given["rows"])
        columns = {}
        for name, (dtype, width) in self.columns.items():
            shape = (count, width) if name in ("rows", "soft_labels") else (count,)
            if given[name].shape != shape:
                raise MemofastError(
                    f"id {id!r}: {name} of store {self.path} must be {list(shape)}, got {list(given[name].shape)}"
                )
            exact = whole if dtype in description.RAW else _finite
            columns[name] = exact(given[name], dtype, f"id {id!r}: {name} of store {self.path}")
        self._put(id, count, columns)


def _finite(values: np.ndarray, dtype: str, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype(dtype)
    if not np.isfinite(values).all():
        raise MemofastError(
            f"{what}: some values are not finite in {dtype}: repair the features or store them as float32"
        )
    return values


def whole(values: np.ndarray, dtype: str, what: str) -> np.ndarray:
    """Whole numbers as they are, in a narrower type. Raises: `MemofastError`, beginning with `what`, for others, and
    beyond that type."""
    limits = np.iinfo(dtype)
    if values.dtype.kind not in "iu" or (values.size and not limits.min <= values.min() <= values.max() <= limits.max):
        raise MemofastError(
            f"{what} are kept as {dtype}, and must be whole numbers from {limits.min} to {limits.max}: scale and round "
            "them"
        )
    return values.astype(dtype)

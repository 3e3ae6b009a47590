"""Feature pickles of MMSA and MultiBench: samples of fixed length with padding and infinities, as rows of their true
length.

MultiBench (`mosi_raw.pkl`): vision, audio, text [N, 50, width], padded with zeros in front; labels [N, 1, 1]. MMSA
(`aligned_50.pkl`, `unaligned_50.pkl`): the same and raw_text, text_bert [N, 3, L], audio_lengths, vision_lengths,
regression_labels [N], id `video$_$clip`.
Source: the loaders of both, which keep padding, and of which one keeps +inf.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.prepare.sources.pickle_faults import LostColumns, refuse_classes, refuse_lengths
from memofast.prepare.sources.pickled_arrays import let_go
from memofast.prepare.sources.pickled_columns import column, numbers, rectangle, whole_numbers, words_of
from memofast.prepare.sources.restricted_pickle import read_pickle

SPLITS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}
FIELDS = {"visual": "vision", "speech": "audio", "text_features": "text"}
MODALITY_LABELS = {name: f"regression_labels_{letter}" for name, letter in zip(MODALITIES, "TVA", strict=True)}
_CLIP = re.compile(r"(.+?)(?:\$_\$.*|\[\d+\])")
_LARGEST_SAMPLE = 1 << 28  # bytes of its rows as float32
_READ_AT_ONCE = 1 << 26  # bytes of a table that stay in memory


class Table:
    """Rows [N, L, width] of all samples of a split, in the file where they are an array there."""

    def __init__(self, values: np.ndarray):
        self.values, self._read = values, 0

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, place: int, span: slice = slice(None)) -> np.ndarray:
        """[n, width] float32 of the sample at `place`, a copy."""
        chosen = self.values[place, span]
        with np.errstate(over="ignore"):
            rows = np.array(chosen, np.float32)
        self._read += chosen.nbytes
        if self._read > _READ_AT_ONCE:
            let_go(self.values)
            self._read = 0
        return rows


@dataclass(frozen=True)
class Rows:
    """The rows of a sample, still in the file; `read` gives them as [len, width] float32, what is not finite as 0."""

    table: Table
    place: int
    span: slice

    def __len__(self) -> int:
        return self.span.stop - self.span.start

    @property
    def width(self) -> int:
        return self.table.values.shape[2]

    def read(self) -> np.ndarray:
        rows = self.table.rows(self.place, self.span)
        rows[~np.isfinite(rows)] = 0
        return rows


@dataclass(frozen=True)
class PickledSample:
    """rows: by store, may be of length 0. value: None where it is no number; modality_values: those of one modality
    alone, where the pickle has such. text: None where the pickle has no sentences."""

    id: str
    split: str
    video: str
    rows: Mapping[str, Rows]
    value: float | None
    modality_values: Mapping[str, float | None]
    text: str | None


@dataclass
class Cleaning:
    """What was found: values that are not finite by store and kind, the samples and columns they stand in, and other
    oddities by name."""

    not_finite: dict[str, Counter] = field(default_factory=dict)
    samples: Counter = field(default_factory=Counter)
    columns: dict[str, set[int]] = field(default_factory=dict)
    other: Counter = field(default_factory=Counter)

    def lines(self) -> list[str]:
        told = []
        for name, kinds in self.not_finite.items():
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            columns = sorted(self.columns[name])
            shown = ", ".join(map(str, columns[:8])) + (", ..." if len(columns) > 8 else "")
            told.append(f"{name}: {counts} in {self.samples[name]} samples (columns {shown}) are now 0")
        return told + [f"{count} {what}" for what, count in self.other.items()]


def read_feature_pickle(path: Path) -> tuple[list[PickledSample], Cleaning]:
    """All samples of a pickle without their padding; values that are not finite are counted, and read as 0.

    Samples without text rows are left out and counted, as MultiBench does. Raises: `MemofastError` for a file of
    another layout.
    """
    contents = read_pickle(path)
    if not isinstance(contents, dict) or not set(contents) & set(SPLITS):
        raise MemofastError(f"{path} is no pickle of MMSA or MultiBench: it must be a dict of train, valid and test")
    cleaning, samples, taken = Cleaning(), [], Counter()
    for name in (name for name in SPLITS if name in contents):
        samples += _split(path, name, contents[name], cleaning, taken)
    if not samples:
        raise MemofastError(f"{path} has no sample with text; nothing to import")
    stores = samples[0].rows.keys()
    if other := next((sample for sample in samples if sample.rows.keys() != stores), None):
        missing = FIELDS[next(iter(stores ^ other.rows.keys()))]
        raise MemofastError(f"{path}: {samples[0].split} and {other.split} differ, one has no {missing}")
    labels = samples[0].modality_values.keys()
    if other := next((sample for sample in samples if sample.modality_values.keys() != labels), None):
        missing = MODALITY_LABELS[next(iter(labels ^ other.modality_values.keys()))]
        raise MemofastError(f"{path}: {samples[0].split} and {other.split} differ, one has no {missing}")
    for store, rows in samples[0].rows.items():
        if other := next((sample for sample in samples if sample.rows[store].width != rows.width), None):
            raise MemofastError(
                f"{path}: {FIELDS[store]} is {rows.width} wide in {samples[0].split} and {other.rows[store].width} in "
                f"{other.split}; one width is needed"
            )
    return samples, cleaning


def _split(path: Path, name: str, part: Any, cleaning: Cleaning, taken: Counter) -> list[PickledSample]:
    where = f"{path}, {name}"
    part = part if isinstance(part, dict) else {}
    labels = next((part[key] for key in ("regression_labels", "labels") if key in part), None)
    if labels is None or not set(FIELDS.values()) & set(part):
        raise MemofastError(
            f"{where} has no labels, or none of {', '.join(FIELDS.values())}; it must be as MMSA or MultiBench write it"
        )
    values = _values(labels, f"{where}: labels", cleaning)
    refuse_classes(values, part.get("classification_labels"), f"{where}: labels")
    alone = _of_modalities(part, where, cleaning)
    tables = {store: _table(part[key], f"{where}: {key}") for store, key in FIELDS.items() if key in part}
    told = {key: column(part[key], f"{where}: {key}") for key in ("id", "raw_text") if key in part}
    lengths = {key: whole_numbers(part[key], f"{where}: {key}") for key in _LENGTHS.values() if key in part}
    if "text_bert" in part:
        told["text_bert"] = rectangle(part["text_bert"], f"{where}: text_bert")
    count, named = len(values), {MODALITY_LABELS[modality]: own for modality, own in alone.items()}
    if odd := next((key for key, given in (tables | told | lengths | named).items() if len(given) != count), None):
        raise MemofastError(f"{where}: {count} labels, but another number of {FIELDS.get(odd, odd)}")
    for store, key in _LENGTHS.items():
        if key in lengths and store in tables:
            refuse_lengths(lengths[key], tables[store].values.shape[1], f"{where}: {key}", FIELDS[store])
    samples, lost = [], {store: LostColumns(table.values.shape[2]) for store, table in tables.items()}
    for place in range(count):
        used = {store: _used(store, table.rows(place), cleaning, lost[store]) for store, table in tables.items()}
        bert = told["text_bert"][place] if "text_bert" in told else None
        own_lengths = {store: int(lengths[key][place]) for store, key in _LENGTHS.items() if key in lengths}
        spans = _spans(used, bert, own_lengths, cleaning)
        here = f"{where}, sample {place}"
        text = _text(told["raw_text"][place], here) if "raw_text" in told else None
        if ((span := spans.get("text_features")) and span.start == span.stop) or text == "":
            cleaning.other["samples without text left out"] += 1
            continue
        if all(span.start == span.stop for span in spans.values()):
            cleaning.other["samples without any rows, kept"] += 1
        id, video = _identity(told["id"][place], here) if "id" in told else (f"{name}_{place:05}",) * 2
        rows = {store: Rows(table, place, spans[store]) for store, table in tables.items()}
        own_values = {modality: _number(own[place]) for modality, own in alone.items()}
        value = _number(values[place])
        samples.append(PickledSample(_unique(id, taken), SPLITS[name], video, rows, value, own_values, text))
    for store, columns in lost.items():
        columns.refuse(f"{where}: {FIELDS[store]}")
    return samples


_LENGTHS = {"speech": "audio_lengths", "visual": "vision_lengths"}


def _values(labels: Any, what: str, cleaning: Cleaning) -> np.ndarray:
    """[N] float32, the first column of the labels."""
    values = np.atleast_1d(numbers(labels, what))
    if not values.size:
        raise MemofastError(f"{what} are empty")
    if values.size > len(values):  # MOSEI may have emotions after the sentiment
        cleaning.other["samples with labels after the first, which are left out"] += len(values)
    values = values[(slice(None), *[0] * (values.ndim - 1))]
    cleaning.other.update({"labels that are no number": n} if (n := int((~np.isfinite(values)).sum())) else {})
    return values


def _of_modalities(part: Mapping[str, Any], where: str, cleaning: Cleaning) -> dict[str, np.ndarray]:
    """By modality the labels [N] float32 of it alone, where the file has such, as SIMS does."""
    found = {}
    for modality, key in MODALITY_LABELS.items():
        if key in part:
            found[modality] = _values(part[key], f"{where}: {key}", cleaning)
            refuse_classes(found[modality], None, f"{where}: {key}")
    return found


def _number(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _table(values: Any, what: str) -> Table:
    """One row a sample where there is no L."""
    table = rectangle(values, what)
    if table.ndim == 2:
        table = table[:, None]
    if table.ndim != 3 or not table.shape[2]:
        raise MemofastError(f"{what} has shape {list(table.shape)}, not [samples, rows, width]")
    if 4 * table.shape[1] * table.shape[2] > _LARGEST_SAMPLE:
        raise MemofastError(f"{what} has shape {list(table.shape)}: samples of over {_LARGEST_SAMPLE >> 20} MiB")
    return Table(table)


def _used(store: str, rows: np.ndarray, cleaning: Cleaning, lost: LostColumns) -> np.ndarray:
    """Which rows [L] of a sample are not zero; counts what is not finite, and sets it to 0."""
    bad = ~np.isfinite(rows)
    lost.look(rows, bad)
    if bad.any():
        kinds = {"+inf": np.isposinf(rows), "-inf": np.isneginf(rows), "NaN": np.isnan(rows)}
        found = cleaning.not_finite.setdefault(store, Counter())
        found.update({kind: int(mask.sum()) for kind, mask in kinds.items() if mask.any()})
        cleaning.samples[store] += 1
        cleaning.columns.setdefault(store, set()).update(np.flatnonzero(bad.any(0)).tolist())
        rows[bad] = 0
    return rows.any(1)


def _spans(
    used: Mapping[str, np.ndarray], bert: np.ndarray | None, lengths: Mapping[str, int], cleaning: Cleaning
) -> dict[str, slice]:
    """Which rows of a sample are no padding: by its lengths, where all modalities go in the same steps by its words,
    or by all of them without words, else by its zeros. bert: [3, L], the second row 1 at words."""
    words = used.get("text_features")
    if words is not None and bert is not None and bert.shape == (3, len(words)):
        words = words & (bert[1] > 0)
    same_steps = len({len(rows) for rows in used.values()}) == 1
    steps = _reach(np.logical_or.reduce([*used.values()]) if words is None else words) if same_steps else None
    spans = {} if words is None else {"text_features": _reach(words)}
    for store in used.keys() - spans.keys():
        if not used[store].any():
            spans[store] = slice(0, 0)
        elif store in lengths:
            spans[store] = _by_length(used[store], lengths[store], cleaning)
        else:
            spans[store] = steps or _reach(used[store])
    return spans


def _reach(used: np.ndarray) -> slice:
    places = np.flatnonzero(used)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _by_length(used: np.ndarray, length: int, cleaning: Cleaning) -> slice:
    """The rows of this length, at the front or at the back, outside which all is zero."""
    if not used[length:].any():
        return slice(0, length)
    if not used[: len(used) - length].any():
        return slice(len(used) - length, len(used))
    cleaning.other["lengths that contradict their rows; zeros at the ends were removed instead"] += 1
    return _reach(used)


def _text(given: Any, where: str) -> str:
    parts = words_of(given, f"{where}: raw_text")
    if len(parts) != 1:
        raise MemofastError(f"{where}: raw_text is {len(parts)} texts, not one sentence")
    return parts[0].strip()


def _identity(given: Any, where: str) -> tuple[str, str]:
    """Id of a sample and of its video: of `video$_$clip`, `video[clip]`, or `[video, start, end]`."""
    parts = words_of(given, f"{where}: id")
    id = "_".join(parts)
    if not id or not id.isprintable() or len(id.encode()) > _LONGEST_ID:
        raise MemofastError(
            f"{where}: the id {id[:60]!a} is no line of text of 1 to {_LONGEST_ID} bytes; rename it in the file"
        )
    if len(parts) > 1:
        return id, parts[0]
    clip = _CLIP.fullmatch(id)
    return id, clip[1] if clip else id


_LONGEST_ID = 500  # bytes; a store's key has 511, and ids that come again are numbered


def _unique(id: str, taken: Counter) -> str:
    """The id, numbered where it is taken already. taken: the last number of each."""
    unique = id
    while unique in taken:
        taken[id] += 1
        unique = f"{id}#{taken[id]}"
    taken[unique] = 1
    return unique

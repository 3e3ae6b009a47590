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

from memofast.errors import MemofastError
from memofast.prepare.sources.restricted_pickle import read_pickle

SPLITS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}
FIELDS = {"visual": "vision", "speech": "audio", "text_features": "text"}
_CLIP = re.compile(r"(.+?)(?:\$_\$.*|\[\d+\])")


@dataclass(frozen=True)
class PickledSample:
    """rows: by store [n, width] float32, n may be 0. value: None where it is no number. text: None where the pickle has
    no sentences."""

    id: str
    split: str
    video: str
    rows: Mapping[str, np.ndarray]
    value: float | None
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
    """All samples of a pickle, padding removed, values that are not finite set to 0 and counted.

    Samples without text rows are left out and counted, as MultiBench does. Raises: `MemofastError` for a file of
    another layout.
    """
    contents = read_pickle(path)
    if not isinstance(contents, dict) or not set(contents) & set(SPLITS):
        raise MemofastError(f"{path} is no pickle of MMSA or MultiBench: it must be a dict of train, valid and test")
    cleaning, samples, seen = Cleaning(), [], Counter()
    for name in (name for name in SPLITS if name in contents):
        samples += _split(path, name, contents[name], cleaning, seen)
    if not samples:
        raise MemofastError(f"{path} has no sample with text; nothing to import")
    stores = samples[0].rows.keys()
    if other := next((sample for sample in samples if sample.rows.keys() != stores), None):
        missing = FIELDS[next(iter(stores ^ other.rows.keys()))]
        raise MemofastError(f"{path}: {samples[0].split} and {other.split} differ, one has no {missing}")
    return samples, cleaning


def _split(path: Path, name: str, part: Any, cleaning: Cleaning, seen: Counter) -> list[PickledSample]:
    where = f"{path}, {name}"
    part = part if isinstance(part, dict) else {}
    labels = next((part[key] for key in ("regression_labels", "labels") if key in part), None)
    if labels is None or "text" not in part:
        raise MemofastError(f"{where} has no text or no labels; it must be as MMSA or MultiBench write it")
    values = np.atleast_1d(_numbers(labels, f"{where}: labels"))
    values = values[(slice(None), *[0] * (values.ndim - 1))]  # MOSEI may have emotions after the sentiment
    tables = {store: _table(part[key], f"{where}: {key}") for store, key in FIELDS.items() if key in part}
    count = len(values)
    told = {key: part[key] for key in ("id", "raw_text", "text_bert", "audio_lengths", "vision_lengths") if key in part}
    if odd := next(
        (key for key, column in (tables | told).items() if not hasattr(column, "__len__") or len(column) != count), None
    ):
        raise MemofastError(f"{where}: {count} labels, but another number of {FIELDS.get(odd, odd)}")
    for store, table in tables.items():
        _make_finite(store, table, cleaning)
    cleaning.other.update({"labels that are no number": n} if (n := int((~np.isfinite(values)).sum())) else {})
    samples = []
    for place in range(count):
        spans = _spans(place, tables, told, cleaning)
        text = str(told["raw_text"][place]).strip() if "raw_text" in told else None
        if spans["text_features"].start == spans["text_features"].stop or text == "":
            cleaning.other["samples without text left out"] += 1
            continue
        id, video = _identity(told["id"][place] if "id" in told else f"{name}_{place:05}")
        seen[id] += 1
        rows = {store: table[place, spans[store]] for store, table in tables.items()}
        value = float(values[place]) if np.isfinite(values[place]) else None
        unique = id if seen[id] == 1 else f"{id}#{seen[id]}"
        samples.append(PickledSample(unique, SPLITS[name], video, rows, value, text))
    return samples


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float32)
    except (ValueError, TypeError):
        raise MemofastError(f"{what} are not numbers of one shape") from None


def _table(values: Any, what: str) -> np.ndarray:
    """[N, L, width] float32, a copy; one row a sample where there is no L."""
    table = np.array(_numbers(values, what))
    if table.ndim == 2:
        table = table[:, None]
    if table.ndim != 3 or not table.shape[2]:
        raise MemofastError(f"{what} has shape {list(table.shape)}, not [samples, rows, width]")
    return table


def _make_finite(store: str, table: np.ndarray, cleaning: Cleaning) -> None:
    bad = ~np.isfinite(table)
    if not bad.any():
        return
    kinds = {"+inf": np.isposinf(table), "-inf": np.isneginf(table), "NaN": np.isnan(table)}
    found = cleaning.not_finite.setdefault(store, Counter())
    found.update({kind: int(mask.sum()) for kind, mask in kinds.items() if mask.any()})
    cleaning.samples[store] += int(bad.any((1, 2)).sum())
    cleaning.columns.setdefault(store, set()).update(np.flatnonzero(bad.any((0, 1))).tolist())
    table[bad] = 0


def _spans(
    place: int, tables: Mapping[str, np.ndarray], told: Mapping[str, Any], cleaning: Cleaning
) -> dict[str, slice]:
    """Which rows of a sample are no padding: by its lengths, by its words where all modalities go in the same steps,
    else by its zeros."""
    used = {store: table[place].any(1) for store, table in tables.items()}
    words = used["text_features"]
    if "text_bert" in told and np.shape(told["text_bert"][place]) == (3, len(words)):
        words = words & (np.asarray(told["text_bert"][place][1]) > 0)
    spans = {"text_features": _reach(words)}
    for store in tables.keys() - spans.keys():
        lengths = told.get(f"{FIELDS[store]}_lengths")
        if not used[store].any():
            spans[store] = slice(0, 0)
        elif lengths is not None:
            spans[store] = _by_length(used[store], int(lengths[place]), cleaning)
        else:
            same_steps = all(len(other) == len(words) for other in used.values())
            spans[store] = spans["text_features"] if same_steps else _reach(used[store])
    return spans


def _reach(used: np.ndarray) -> slice:
    places = np.flatnonzero(used)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _by_length(used: np.ndarray, length: int, cleaning: Cleaning) -> slice:
    """The rows of this length, at the front or at the back, outside which all is zero."""
    length = min(max(length, 0), len(used))
    if not used[length:].any():
        return slice(0, length)
    if not used[: len(used) - length].any():
        return slice(len(used) - length, len(used))
    cleaning.other["lengths that contradict their rows; zeros at the ends were removed instead"] += 1
    return _reach(used)


def _identity(given: Any) -> tuple[str, str]:
    """Id of a sample and of its video: of `video$_$clip`, `video[clip]`, or `[video, start, end]`."""
    parts = [_word(part) for part in np.ravel(np.asarray(given, object)).tolist()]
    if len(parts) > 1:
        return "_".join(parts), parts[0]
    clip = _CLIP.fullmatch(parts[0])
    return parts[0], clip[1] if clip else parts[0]


def _word(part: Any) -> str:
    return part.decode("utf-8", errors="replace") if isinstance(part, bytes) else str(part)

"""A corpus: stores joined by sample id, with splits.

A corpus is a folder with `corpus.json`:

    {"format": 1, "name": "grid",
     "stores": {"text": "text", "visual": "visual", "speech": "speech"},
     "streams": {"glove": {"store": "glove", "modality": "text"}},
     "splits": {"train": {"file": "splits/train.txt", "samples": 900}, ...}}

Paths are relative to the folder, or absolute. The text store is always there (a corpus without words has records of
[CLS] alone) and must hold every id; a sample that the visual or speech store does not hold has no rows of it. Streams
are further stores of feature rows, each made of a modality; they may be missing. Split files hold one id a line. Class
labels live in the text store, soft labels per face in the visual store.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memofast.data import packing
from memofast.data.batch import PackedBatch
from memofast.data.corpus_description import CORPUS, FORMAT, check_description, read_description, read_lines
from memofast.data.facts import Facts, all_labelled
from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.files import replace_file, write_json
from memofast.store import RAW, FeatureStore, Store, TextStore

_LABELS_AT_ONCE = 4096  # samples


def sample_key(corpus: str, id: str) -> int:
    """The random numbers' name for a sample: BLAKE2b-64 of `corpus/id`, little-endian, signed."""
    digest = hashlib.blake2b(f"{corpus}/{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def write_corpus(
    path: str | Path,
    name: str,
    stores: Mapping[str, str | Path],
    splits: Mapping[str, Iterable[str]],
    facts: Mapping[str, Any] | None = None,
    streams: Mapping[str, tuple[str | Path, str]] | None = None,
) -> "Corpus":
    """Describe finished stores and splits in `path/corpus.json`; replaces an earlier description.

    Args: stores: modality -> folder; kept as a path relative to the corpus where it lies inside. splits: name -> ids,
        which share none.
        facts: more entries for `corpus.json`, as source and licence. streams: name -> folder of a feature store, and
        the modality it was made of.
    Raises: `MemofastError` for an unknown modality, a name that is both a stream and a modality, a missing store, an id
        twice, in two splits, or not in the text store.
    """
    path = Path(path)
    if wrong := set(stores) - set(MODALITIES):
        raise MemofastError(f"corpus {name}: no modality {sorted(wrong)[0]!r}; there are {', '.join(MODALITIES)}")
    streams = dict(streams or {})
    for stream, (store, modality) in streams.items():
        if stream in MODALITIES or modality not in MODALITIES:
            raise MemofastError(
                f"corpus {name}: stream {stream!r} of {modality!r}; "
                f"a stream has a name of its own and is of {', '.join(MODALITIES)}"
            )
        _open_store(Path(store), "visual")
    splits = {split: list(ids) for split, ids in splits.items()}
    _check_splits(name, splits, _open_store(Path(stores["text"]), "text") if "text" in stores else None)
    files = {split: f"splits/{split}.txt" for split in splits}
    description = {
        "format": FORMAT,
        "name": name,
        "stores": {modality: _relative(Path(store), path) for modality, store in stores.items()},
        "splits": {split: {"file": files[split], "samples": len(ids)} for split, ids in splits.items()},
    }
    if streams:
        description["streams"] = {
            stream: {"store": _relative(Path(store), path), "modality": modality}
            for stream, (store, modality) in streams.items()
        }
    description = {**(facts or {}), **description}
    check_description(path, description)
    try:
        (path / "splits").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemofastError(f"corpus {path} cannot be made ({error.strerror}): choose another folder") from None
    for split, ids in splits.items():
        replace_file(path / files[split], "".join(f"{id}\n" for id in ids).encode())
    write_json(path / CORPUS, description)
    return Corpus.open(path)


def write_part(path: str | Path, name: str, of: str, ids: Iterable[str], rules: Iterable[Mapping[str, Any]]) -> None:
    """Add a split to `path/corpus.json` that is part of another one, with the rules that chose it; replaces an earlier
    part of this name.

    Args: rules: each with `rule`, its name, and counts; they follow the corpus' other rules, those of an earlier part
        leave.
    Raises: `MemofastError` where `name` is a split of its own, or an id is not in the split `of`.
    """
    path, ids = Path(path), list(ids)
    corpus = Corpus.open(path)
    description = corpus.description
    if name in description["splits"] and description["splits"][name].get("part_of") != of:
        raise MemofastError(f"corpus {path} has a split {name} that is no part of {of}: choose another name")
    if foreign := sorted(set(ids) - set(corpus.split(of).ids)):
        raise MemofastError(f"id {foreign[0]!r} is not in split {of} of corpus {path}")
    kept = [rule for rule in description.get("rules", []) if rule.get("split") != name]
    file = f"splits/{name}.txt"
    replace_file(path / file, "".join(f"{id}\n" for id in ids).encode())
    entry = {"file": file, "samples": len(ids), "part_of": of}
    changed = {"splits": description["splits"] | {name: entry}, "rules": kept + [{**r, "split": name} for r in rules]}
    write_json(path / CORPUS, description | changed)


def replace_store(path: str | Path, modality: str, store: str | Path, facts: Mapping[str, Any]) -> None:
    """Let `path/corpus.json` name another finished store of the same samples, in one step; `facts`: more entries for
    it.

    Raises: `MemofastError` where the store lacks a sample or is not finished.
    """
    path, corpus = Path(path), Corpus.open(path)
    if _open_store(Path(store), modality).ids != corpus.stores[modality].ids:
        raise MemofastError(
            f"store {store} holds other samples than {corpus.stores[modality].path}: make it again from that one"
        )
    stores = corpus.description["stores"] | {modality: _relative(Path(store), path)}
    write_json(path / CORPUS, corpus.description | dict(facts) | {"stores": stores})


def _check_splits(name: str, splits: Mapping[str, list[str]], text: Store | None) -> None:
    if text is None:
        raise MemofastError(f"corpus {name} needs a text store; without words, write records of [CLS] alone")
    home: dict[str, str] = {}
    for split, ids in splits.items():
        for id in ids:
            if id in home:
                raise MemofastError(f"corpus {name}: id {id!r} stands in split {home[id]} and again in {split}")
            if id not in text.rows_of:
                raise MemofastError(f"corpus {name}: id {id!r} of split {split} is not in store {text.path}")
            home[id] = split


def _relative(store: Path, corpus: Path) -> str:
    store, corpus = store.resolve(), corpus.resolve()
    return os.path.relpath(store, corpus) if store.is_relative_to(corpus) else str(store)


def _open_store(path: Path, modality: str) -> Store:
    store = (TextStore if modality == "text" else FeatureStore).open(path)
    if not store.complete:
        raise MemofastError(
            f"store {path} is not finished ({len(store)} records so far): run what writes it again, it goes on from "
            "there"
        )
    return store


@dataclass(eq=False)
class Corpus:
    """An open corpus.

    name: part of every sample's key. weight: how often its streams are drawn, relative to others. modalities: `text`
    and what else it has.
    stores: by modality. streams: by name the store of further rows, and the modality they were made of. targets: names
    of the targets its batches carry (`label`, `emotions`, `value`, `value_*`, `lexicon`, `soft_labels`). classes: their
    class names.
    """

    path: Path
    name: str
    weight: float
    stores: dict[str, Store]
    description: dict[str, Any] = field(repr=False)
    streams: dict[str, tuple[Store, str]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path, weight: float = 1.0) -> "Corpus":
        """Raises: `MemofastError` where the corpus or a store is missing, unfinished or of the wrong kind."""
        path = Path(path)
        description = read_description(path)
        folders = description["stores"]
        stores = {m: _open_store(path / folders[m], m) for m in MODALITIES if m in folders}
        streams = {
            stream: (_open_store(path / entry["store"], "visual"), entry["modality"])
            for stream, entry in description.get("streams", {}).items()
        }
        if "text" not in stores:
            raise MemofastError(f"corpus {path} names no text store in {CORPUS}")
        return cls(path, description["name"], weight, stores, description, streams)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.stores)

    @cached_property
    def targets(self) -> frozenset[str]:
        return frozenset(n for m, store in self.stores.items() for n in packing.TARGETS[m] if n in store.columns)

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        return {
            n: self.stores[m].classes[n] for m in ("text", "visual") if m in self.stores for n in self.stores[m].classes
        }

    def width(self, modality: str) -> int:
        """Values per row as stored, of `visual`, `speech` or a stream; 0 where the corpus has none. Batches pad it to a
        multiple of 8."""
        store = self.streams[modality][0] if modality in self.streams else self.stores.get(modality)
        return store.columns["rows"][1] if store is not None else 0

    @cached_property
    def raw(self) -> frozenset[str]:
        """The modalities and streams whose rows are raw: pixels of a face, or samples of sound."""
        stores = {name: store for name, (store, _) in self.streams.items()} | self.stores
        return frozenset(name for name, store in stores.items() if store.columns.get("rows", ("",))[0] in RAW)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.description["splits"])

    def split(self, name: str, longest: tuple[int | None, int | None, int | None] = (None, None, None)) -> "Split":
        """The samples of one split.

        Args: longest: most text, visual and speech rows of a sample; longer ones are left out and counted in
            `Split.excluded`.
        Raises: `MemofastError` for an unknown split, a missing id, or where no sample is left.
        """
        if name not in self.description["splits"]:
            there = ", ".join(self.splits) or "none"
            raise MemofastError(
                f"corpus {self.path} has no split {name!r}; it has {there}: name one of them, or prepare it with "
                f"--split {name}=FRACTION"
            )
        file = self.path / self.description["splits"][name]["file"]
        ids, count = read_lines(file), self.description["splits"][name]["samples"]
        split = Split.of_ids(self, name, ids, longest)
        if len(ids) != count:
            raise MemofastError(
                f"{file} lists {len(ids):,} samples, {self.path / CORPUS} says {count:,}: restore the one that is wrong"
            )
        return split


@dataclass(eq=False)
class Split:
    """Samples of a corpus, in the order of the split's file.

    ids [n]; keys [n] int64, see `sample_key`; lengths [n, 3] int32: text (with [CLS] and [SEP]), visual and speech
    rows.
    excluded: samples left out as too long. streams: names of those that its batches carry, see `reading`.
    """

    corpus: Corpus
    name: str
    ids: list[str]
    keys: np.ndarray
    lengths: np.ndarray
    excluded: int = 0
    streams: tuple[str, ...] = ()

    @classmethod
    def of_ids(
        cls, corpus: Corpus, name: str, ids: list[str], longest: tuple[int | None, ...] = (None, None, None)
    ) -> "Split":
        """These samples, see `Corpus.split`."""
        missing = next((id for id in ids if id not in corpus.stores["text"].rows_of), None)
        if missing is not None:
            raise MemofastError(
                f"id {missing!r} of split {name} is not in store {corpus.stores['text'].path}: prepare it or take it "
                "out of the split"
            )
        if len(set(ids)) < len(ids):
            repeated = Counter(ids).most_common(1)[0][0]
            raise MemofastError(f"split {name} of corpus {corpus.path} names sample {repeated!r} twice")
        lengths = np.zeros((len(ids), len(MODALITIES)), np.int32)
        for column, modality in enumerate(MODALITIES):
            if modality in corpus.stores:
                rows = corpus.stores[modality].rows_of
                lengths[:, column] = [rows.get(id, 0) for id in ids]
        limits = np.array([np.iinfo(np.int32).max if limit is None else limit for limit in longest])
        kept = np.flatnonzero((lengths <= limits).all(1))
        if not len(kept):
            raise MemofastError(
                f"split {name} of corpus {corpus.path} has no samples ({len(ids)} left out as longer than {longest}): "
                "raise the limits or check the split"
            )
        keys = np.array([sample_key(corpus.name, ids[i]) for i in kept], np.int64)
        return cls(corpus, name, [ids[i] for i in kept], keys, lengths[kept], len(ids) - len(kept))

    def __len__(self) -> int:
        return len(self.ids)

    def reading(self, streams: Iterable[str]) -> "Split":
        """The same samples, whose batches carry these streams. Raises: `MemofastError` for one that the corpus does not
        have."""
        streams = tuple(streams)
        if missing := next((name for name in streams if name not in self.corpus.streams), None):
            raise MemofastError(
                f"corpus {self.corpus.path} has no stream {missing!r}; it has "
                f"{', '.join(self.corpus.streams) or 'none'}: list a feature store under streams in {CORPUS}"
            )
        return replace(self, streams=streams)

    @cached_property
    def words(self) -> "Split":
        """The same samples with text and labels alone: what to pack where nobody looks at features."""
        corpus = replace(self.corpus, stores={"text": self.corpus.stores["text"]})
        return replace(self, corpus=corpus, lengths=self.lengths * np.array([1, 0, 0], np.int32), streams=())

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """By modality and stream [n] int64: where each sample stands in the store; -1 where it does not."""
        stores = self.corpus.stores | {name: self.corpus.streams[name][0] for name in self.streams}
        return {
            name: np.array([store.place_of.get(id, -1) for id in self.ids], np.int64) for name, store in stores.items()
        }

    @cached_property
    def facts(self) -> Facts:
        """What decides which objectives can serve which sample."""
        return Facts(
            self.lengths, self.corpus.targets, self._all_faces_labelled, self.stream_lengths, self._target_of_samples
        )

    @cached_property
    def stream_lengths(self) -> dict[str, np.ndarray]:
        """Rows of each sample [n] int64, by the streams that batches carry."""
        return {name: packing.Source(self.corpus.streams[name][0], self.places[name]).lengths for name in self.streams}

    def _all_faces_labelled(self) -> np.ndarray:
        """Which samples have faces with a soft label each [n] bool, read once from the store."""
        if "soft_labels" not in self.corpus.targets:
            return np.zeros(len(self), bool)
        found = np.zeros(len(self), bool)
        store, places = self.corpus.stores["visual"], self.places["visual"]
        for chosen in np.array_split(np.arange(len(self)), -(-len(self) // _LABELS_AT_ONCE)):
            labels, offsets = packing.column(packing.Source(store, places[chosen]), "soft_labels")
            found[chosen] = all_labelled(labels, offsets)
        return found

    def mean_rows(self, modality: str) -> np.ndarray:
        """The mean feature row of each sample [n, width] float32, zero where it has none; read once from the store."""
        if modality not in self._means:
            source = packing.Source(self.corpus.stores[modality], self.places[modality])
            means = np.zeros((len(self), self.corpus.width(modality)), np.float32)
            for chosen in np.array_split(np.arange(len(self)), -(-len(self) // _LABELS_AT_ONCE)):
                rows, starts = packing.column(source._replace(places=source.places[chosen]), "rows")
                present = np.flatnonzero(np.diff(starts))
                if len(present):
                    sums = np.add.reduceat(rows, starts[:-1][present], axis=0, dtype=np.float64)
                    means[chosen[present]] = sums / np.diff(starts)[present, None]
            self._means[modality] = means
        return self._means[modality]

    @cached_property
    def _means(self) -> dict[str, np.ndarray]:
        return {}

    def _target_of_samples(self, name: str) -> np.ndarray:
        """A target of each sample, as `pack` gives it."""
        parts = np.array_split(np.arange(len(self)), -(-len(self) // _LABELS_AT_ONCE))
        return np.concatenate([self.words.pack(chosen).targets[name].numpy() for chosen in parts])

    def pack(
        self,
        indices: Iterable[int] | np.ndarray,
        shown: Mapping[str, np.ndarray] | None = None,
        *,
        dtype: torch.dtype | None = None,
        pin: bool = False,
    ) -> PackedBatch:
        """The samples at `indices` as one batch, see `packing.pack`. shown: by modality [B] int64, whose rows of this
        split each of them shows, -1 for none, of text [CLS] alone; its own elsewhere."""
        indices, shown = np.asarray(indices, np.int64), dict(shown or {})
        hidden = shown.pop("text", indices) < 0
        sources = {
            name: packing.Source(store, self._places(name, shown.get(name, indices)))
            for name, store in self.corpus.stores.items()
        }
        streams = {}
        for name in self.streams:
            store, modality = self.corpus.streams[name]
            own = np.where(hidden, -1, indices) if modality == "text" else shown.get(modality, indices)
            streams[name] = packing.Source(store, self._places(name, own), modality)  # shown where its modality is
        return packing.pack(
            sources, self.keys[indices], [self.ids[i] for i in indices.tolist()], streams,
            shown={name: self.keys[np.where(owners < 0, indices, owners)] for name, owners in shown.items()},
            hidden=hidden if hidden.any() else None, dtype=dtype, pin=pin,
        )  # fmt: skip

    def _places(self, name: str, owners: np.ndarray) -> np.ndarray:
        return np.where(owners < 0, -1, self.places[name][owners])

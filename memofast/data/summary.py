"""What a corpus holds, counted from its stores: samples, rows, labels, and what its preparation left out."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from memofast.data.corpus import MODALITIES, Corpus, Split
from memofast.data.folds import read_groups
from memofast.schemas import Count, Schema, read_described
from memofast.store import TextStore

REPORT = "report.json"
_QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95, "longest": 1.0}
_FACTS = ("extractor", "normalisation", "source", "licence")


def summarise(corpus: Corpus, by: str | None = None) -> dict[str, Any]:
    """All counts, as JSON can hold them. by: a name of groups, such as `speaker`.

    stores: of each modality its facts, records, rows, width (0 for text) and digest. splits: of each its samples,
    `rows` by modality (samples that have any, their total and quantiles) and `labels` by class name, "" for samples
    without one. preparation: clips, clips kept, and clips by problem, {} where no `report.json` lies beside the corpus.
    groups, where they are asked for, by their name: of each, the one with most samples first, its samples by split and
    labels; "" for samples without a group.

    Raises: `MemofastError` where the corpus has no groups of that name.
    """
    found = {
        "name": corpus.name,
        "path": str(corpus.path),
        "stores": {modality: _store(corpus, modality) for modality in corpus.modalities},
        "splits": {name: _split(corpus.split(name)) for name in corpus.splits},
        "preparation": _preparation(corpus.path),
    }
    return found | ({"groups": {by: _groups(corpus, by)}} if by else {})


def _groups(corpus: Corpus, by: str) -> dict[str, dict[str, Any]]:
    of, members = read_groups(corpus, by), {}
    for name in corpus.splits:
        for id in corpus.split(name).ids:
            members.setdefault(of.get(id, ""), {}).setdefault(name, []).append(id)
    found = {}
    for group, ids in sorted(members.items(), key=lambda one: (-sum(map(len, one[1].values())), one[0])):
        everywhere = [id for own in ids.values() for id in own]
        splits = {name: len(own) for name, own in ids.items()}
        found[group] = {"samples": len(everywhere), "splits": splits, "labels": _labels(corpus, everywhere)}
    return found


def _store(corpus: Corpus, modality: str) -> dict[str, Any]:
    store = corpus.stores[modality]
    facts = {name: store.meta[name] for name in _FACTS if store.meta.get(name)}
    width = 0 if modality == "text" else corpus.width(modality)
    counts = {"records": len(store), "rows": int(store.lengths.sum()), "width": width}
    return facts | counts | {"digest": store.meta.get("digest", "")}


def _split(split: Split) -> dict[str, Any]:
    rows = {}
    for column, modality in enumerate(MODALITIES):
        lengths = split.lengths[:, column]
        # text always has [CLS] and [SEP]: a sample with words has more
        present = lengths[lengths > 2] if modality == "text" else lengths[lengths > 0]
        if len(present):
            quantiles = {name: int(np.quantile(present, q, method="nearest")) for name, q in _QUANTILES.items()}
            rows[modality] = {"samples": len(present), "rows": int(present.sum())} | quantiles
    return {"samples": len(split), "rows": rows, "labels": _labels(split.corpus, split.ids)}


def _labels(corpus: Corpus, ids: Sequence[str]) -> dict[str, int]:
    """Samples by class, in the classes' order, of several labels each; empty where the corpus has no labels but those
    of a model."""
    text = corpus.stores["text"]
    classes = text.classes.get("label", [])
    if not classes:
        return {} if "labeller" in text.meta else _shared_labels(text, ids, text.classes.get("emotions", []))
    found = Counter(int(text.read(id)["label"][0]) for id in ids)
    named = {name: found[index] for index, name in enumerate(classes)}
    return named | ({"": found[-1]} if found[-1] else {})


def _shared_labels(text: TextStore, ids: Sequence[str], classes: list[str]) -> dict[str, int]:
    if not classes:
        return {}
    shares = np.array([text.read(id)["emotions"] for id in ids])
    largest = shares.max(1, keepdims=True)
    counts = ((shares > 0) & (shares >= largest / 2)).sum(0).tolist()
    without = int((largest == 0).sum())
    return dict(zip(classes, counts, strict=True)) | ({"": without} if without else {})


class _Listed(Schema):
    count: Count


class _Sample(Schema):
    file: str
    text: str


class _Removed(Schema):
    count: Count
    samples: list[_Sample]


class _File(Schema):
    file: str
    detail: str | None = None


class _LeftOut(Schema):
    count: Count
    files: list[_File]


class _Encoding(Schema):
    encoding: str
    detail: str
    doubtful: bool


class _Text(Schema):
    removed: dict[str, _Removed] = Field(default_factory=dict)
    encodings: dict[str, _Encoding] = Field(default_factory=dict)


class _Report(Schema):
    clips: Count
    kept: Count
    problems: dict[str, _Listed]
    text: _Text | None = None
    left_out: dict[str, _LeftOut] = Field(default_factory=dict)
    streams: dict[str, str] = Field(default_factory=dict)
    subtitles: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


def read_report(corpus: Path) -> dict[str, Any]:
    """What `memofast prepare` wrote into `report.json` beside a corpus, {} where there is none. Raises:
    `MemofastError` for a damaged one."""
    path = corpus / REPORT
    if not path.is_file():
        return {}
    return read_described(path, _Report, "a report of a preparation", "run memofast prepare again")


def _preparation(corpus: Path) -> dict[str, Any]:
    if not (report := read_report(corpus)):
        return {}
    problems = {reason: listed["count"] for reason, listed in report["problems"].items()}
    return {"clips": report["clips"], "kept": report["kept"], "problems": problems}


def sentences(corpus: Corpus, split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Samples of a split drawn at random, in the split's order: `id`, `text`, `label` (None without one) and `rows` by
    modality."""
    chosen = corpus.split(split)
    order = np.sort(np.random.default_rng(seed).permutation(len(chosen))[:count])
    classes = corpus.classes.get("label", [])
    found = []
    for index in order:
        record = corpus.stores["text"].read(chosen.ids[index])
        label = int(record["label"][0]) if "label" in record else -1
        text = bytes(record["utf8"]).decode("utf-8", errors="replace") if "utf8" in record else ""
        rows = dict(zip(MODALITIES, chosen.lengths[index].tolist(), strict=True))
        found.append(
            {"id": chosen.ids[index], "text": text, "label": classes[label] if label >= 0 else None, "rows": rows}
        )
    return found

"""Writing a text store anew with more than it had, record by record."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.store.reader import TextStore
from memofast.store.record import MODALITY_VALUES
from memofast.store.text_writer import TextWriter


def writer_like(text: TextStore, folder: Path, **changes: Any) -> TextWriter:
    """A writer of what a text store holds; changes: arguments of `TextWriter` that are otherwise."""
    special = text.meta["special_tokens"]
    own = {name: text.meta.get(name, "") for name in ("extractor", "fingerprint", "source", "licence", "value")}
    own |= {
        "cls_id": special["cls"], "sep_id": special["sep"], "classes": text.classes.get("label", ()),
        "lexicon_classes": text.classes.get("lexicon", ()), "emotions": text.classes.get("emotions", ()),
        "labeller": text.meta.get("labeller"), "with_parts_of_speech": "part_of_speech" in text.columns,
        "modality_values": [name for name, column in MODALITY_VALUES.items() if column in text.columns],
    }  # fmt: skip
    return TextWriter(folder, **{**own, **changes})


def fields_of(text: TextStore, id: str) -> dict[str, Any]:
    """A record as arguments of `TextWriter.put`. Raises: `MemofastError` for a sentence that is no UTF-8."""
    found = text.read(id)
    try:
        sentence = bytes(found["utf8"]).decode() if "utf8" in found else ""
    except UnicodeDecodeError:
        raise MemofastError(f"store {text.path}: the sentence of {id!r} is no UTF-8; restore the store") from None
    label = int(found["label"][0]) if "label" in found else -1
    per_piece = ("tokens", "words", "lexicon", "part_of_speech", "polarity")
    return {name: found[name][1:-1] for name in per_piece if name in found} | {
        "utf8": sentence,
        "label": label if label >= 0 else None,
        "emotions": found["emotions"] if "emotions" in found and found["emotions"].any() else None,
        "value": _number(found.get("value")),
        "modality_values": {name: _number(found.get(column)) for name, column in MODALITY_VALUES.items()},
    }


def _number(column: np.ndarray | None) -> float | None:
    return None if column is None or math.isnan(column[0]) else float(column[0])

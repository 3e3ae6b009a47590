"""The pickle that MMSA reads: by part `id`, `raw_text`, `text`, `text_bert`, `vision`, `audio`, their lengths, labels
and `annotations`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from memofast.errors import MemofastError
from memofast.files import reserve
from memofast.inference.hidden_states.rows import HiddenStates

_PARTS = {"validation": "valid", "dev": "valid"}
_NAMES = {"visual": "vision", "speech": "audio"}


def check_labelled(states: HiddenStates) -> None:
    """Raises: `MemofastError` where no sample of a split has a label or value, without which MMSA reads nothing."""
    known = _known(states)
    for split in dict.fromkeys(states.splits):
        if not known[np.array(states.splits) == split].any():
            raise MemofastError(
                f"no sample of split {split} of corpus {states.corpus.path} has a label, which the pickle of MMSA "
                "needs; write .npz or .parquet"
            )


def write_mmsa(states: HiddenStates, path: Path, scratch: Path) -> str:
    """Rows padded with zeros to the longest of all parts, which models of a fixed length need. Samples without a label
    are left out.

    Returns: what was written, in words. Padded arrays are memory maps in `scratch` and go into the pickle from there.
    """
    check_labelled(states)
    known, splits = _known(states), np.array(states.splits)
    kept = {split: np.flatnonzero(known & (splits == split)) for split in dict.fromkeys(states.splits)}
    every = np.concatenate(list(kept.values()))
    longest = {
        name: int(own[every + 1].max() and (own[every + 1] - own[every]).max()) for name, own in states.offsets.items()
    }
    content, notes = {}, []
    for split, chosen in kept.items():
        part = _PARTS.get(split.rpartition("/")[2], split.rpartition("/")[2])
        if part in content:
            raise MemofastError(f"two splits are the part {part} of MMSA; give one of them")
        content[part] = _part(states, chosen, longest, scratch, part)
    if missing := [name for modality, name in _NAMES.items() if not longest[modality]]:
        notes.append(f"without {' and '.join(missing)}, of which there are no rows")
    if left_out := int((~known).sum()):
        notes.append(f"{left_out:,} samples without a label left out")
    with open(path, "wb") as file:
        _ArrayPickler(file, protocol=5).dump(content)
    return "; ".join([f"parts {', '.join(content)}, padded to {longest['text']} word pieces", *notes])


def _known(states: HiddenStates) -> np.ndarray:
    return states.labels >= 0 if states.values is None else np.isfinite(states.values)


def _part(
    states: HiddenStates, chosen: np.ndarray, longest: dict[str, int], scratch: Path, part: str
) -> dict[str, Any]:
    sentences, tokens = zip(*(states.text(sample) for sample in chosen), strict=True)
    found: dict[str, Any] = {
        "id": [states.ids[sample] for sample in chosen],
        "raw_text": list(sentences),
        "text": _padded(states, "text", chosen, longest["text"], scratch / f"{part}-text.npy"),
        "text_bert": _bert_inputs(tokens, longest["text"] + 2),
    }
    for modality, name in _NAMES.items():
        if longest[modality]:
            own = states.offsets[modality]
            file = scratch / f"{part}-{name}.npy"
            found[name] = _padded(states, modality, chosen, longest[modality], file)
            found[f"{name}_lengths"] = (own[chosen + 1] - own[chosen]).tolist()
    labels = states.labels[chosen]
    if states.values is not None:
        found["regression_labels"] = states.values[chosen]
        found["annotations"] = [("Negative", "Neutral", "Positive")[int(np.sign(v)) + 1] for v in states.values[chosen]]
    else:
        found["classification_labels"] = labels
        found["annotations"] = [states.classes[label] for label in labels]
    return found


def _padded(states: HiddenStates, modality: str, chosen: np.ndarray, longest: int, path: Path) -> np.ndarray:
    shape = (len(chosen), max(longest, 1), states.pooled.shape[1])
    padded = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    reserve(path)
    for place, sample in enumerate(chosen):
        rows = states.of(modality, sample)
        padded[place, : len(rows)] = rows
    return padded


def _bert_inputs(tokens: tuple[np.ndarray, ...], longest: int) -> np.ndarray:
    """Word pieces, mask and segment [n, 3, longest] float32, as MMSA keeps them."""
    inputs = np.zeros((len(tokens), 3, longest), np.float32)
    for place, own in enumerate(tokens):
        own = own[:longest]
        inputs[place, 0, : len(own)], inputs[place, 1, : len(own)] = own, 1
    return inputs


class _ArrayPickler(pickle.Pickler):
    """Pickles arrays in numpy's usual form, their bytes straight from the array, so that a memory map is not copied
    into memory first."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return NotImplemented
        rebuild, empty, state = np.empty(0, value.dtype).__reduce__()
        version, _, dtype, order, _ = state
        data = pickle.PickleBuffer(memoryview(np.ascontiguousarray(value)).toreadonly().cast("B"))
        return rebuild, empty, (version, value.shape, dtype, order, data)

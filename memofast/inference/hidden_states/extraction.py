"""From a model and splits of a corpus to one file of states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from memofast.data import Corpus
from memofast.data.conditions import modalities_of
from memofast.data.feature_choice import parse_features, reading
from memofast.data.folds import open_split
from memofast.devices import choose_device
from memofast.errors import MemofastError
from memofast.files import remove, temporary_of, writing
from memofast.inference.hidden_states.files import arrow, write_npz, write_parquet
from memofast.inference.hidden_states.mmsa import write_mmsa
from memofast.inference.hidden_states.rows import HiddenStates, compute_hidden_states
from memofast.model.compatibility import check_longest, check_widths, check_words, conditions_for
from memofast.model.families import open_encoder
from memofast.model.feature_sets import unknown_feature_sets

KINDS = (".npz", ".parquet", ".pkl")


def extract_into(
    out: Path,
    model: Path,
    corpus: Path,
    names: Sequence[str],
    condition: str | None = None,
    device: str = "cpu",
    features: Sequence[str] = (),
) -> str:
    """Write the hidden states of splits into one file. condition: modalities shown; None: all that corpus and model
    share. features: MODALITY=STREAM each, see `reading`.

    Returns: a line that says what was written, and lines on what is not known of the rows. Raises: `MemofastError` for
        another kind of file, what is not there, samples in two splits, feature rows of another width or extractor,
        hidden states that are not finite, and a pickle without labels; then there is no file.
    """
    kind = out.suffix.lower()
    if kind not in KINDS:
        raise MemofastError(f"--out {out}: hidden states are written as {', '.join(KINDS)}; choose one of them")
    if kind == ".parquet":
        arrow()
    opened = reading(Corpus.open(corpus), parse_features(features))
    splits = [open_split(opened, name) for name in names]
    ids = [id for split in splits for id in split.ids]
    if len(set(ids)) < len(ids):
        raise MemofastError(f"a sample is in two of the splits {', '.join(names)}; name each once")
    encoder = open_encoder(model)
    check_widths(encoder, model, opened)
    shown = conditions_for(encoder, opened, [condition] if condition else None)[-1]
    for split in splits:
        check_words(encoder, split)
        check_longest(encoder, split, modalities_of(shown))
    on, scratch = choose_device(device), temporary_of(out)
    remove(scratch)
    with writing(out):
        try:
            scratch.mkdir()
            states = compute_hidden_states(encoder, splits, shown, scratch, on)
            said = _written(states, scratch / out.name, scratch)
            with open(scratch / out.name, "rb") as written:
                os.fsync(written.fileno())
            os.replace(scratch / out.name, out)
        finally:
            remove(scratch)
    rows = ", ".join(f"{len(own):,} {name}" for name, own in states.rows.items())
    told = f"{len(ids):,} samples of {opened.name}, condition {shown}, rows {states.pooled.shape[1]} wide: {rows}"
    return "\n".join([f"wrote {out}: {told}; {said}", *unknown_feature_sets(model, opened, encoder.reads)])


def _written(states: HiddenStates, path: Path, scratch: Path) -> str:
    if path.suffix.lower() == ".pkl":
        return write_mmsa(states, path, scratch)
    return (write_npz if path.suffix.lower() == ".npz" else write_parquet)(states, path)

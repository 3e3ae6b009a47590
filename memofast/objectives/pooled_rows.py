"""What a model made of samples, from a file of `memofast extract`, for objectives that ask which of them are alike."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from memofast.data.corpus import Split
from memofast.errors import MemofastError
from memofast.npz import npz_arrays


def pooled_rows(path: str, split: Split, where: str) -> np.ndarray:
    """The pooled vector of each sample of a split [n, width] float32, as the file has it.

    where: who asks, for messages. Raises: `MemofastError` where the file cannot be read, is another one, or lacks a
    sample.
    """
    remedy = f"write it with memofast extract MODEL --corpus {split.corpus.path} --split {split.name} --out FILE.npz"
    try:
        found = npz_arrays(Path(path), ("ids", "pooled"))
        if missing := [name for name in ("ids", "pooled") if name not in found]:
            raise ValueError(f"it has no {missing[0]}")
        ids, rows = found["ids"], found["pooled"]
        if ids.dtype.kind != "U" or ids.ndim != 1 or rows.dtype != np.float32 or rows.shape[:-1] != ids.shape:
            raise ValueError(f"ids {list(ids.shape)} {ids.dtype} with pooled {list(rows.shape)} {rows.dtype}")
        if not np.isfinite(rows).all():
            raise ValueError("a number in pooled is not finite")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise MemofastError(f"{where}: {path} cannot be read ({reason}); {remedy}") from None
    place = {id: number for number, id in enumerate(ids.tolist())}
    if len(place) < len(ids):
        raise MemofastError(f"{where}: {path} names a sample twice; {remedy}")
    if lacking := [id for id in split.ids if id not in place]:
        raise MemofastError(
            f"{where}: {path} lacks {lacking[0]!r}, {len(lacking):,} of {len(split.ids):,} samples of split "
            f"{split.name} of corpus {split.corpus.path}; {remedy}"
        )
    return rows[[place[id] for id in split.ids]]

"""Files of hidden states, each written in pieces: npz and Parquet."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.inference.hidden_states.rows import HiddenStates

_PIECE = 32 << 20  # bytes of rows in a row group


def write_npz(states: HiddenStates, path: Path) -> str:
    """Arrays and offsets, no pickle: `ids`, `splits`, `labels`, `classes`, `values`, `pooled`, and by modality `rows`
    and `offsets`.

    Returns: what was written, in words. The memory maps are copied as they are; what is about samples is in memory.
    """
    small = {"ids": np.array(states.ids), "splits": np.array(states.splits), "labels": states.labels}
    small["classes"] = np.array(states.classes, dtype=str)
    if states.values is not None:
        small["values"] = states.values
    small |= {f"{name}_offsets": own for name, own in states.offsets.items()}
    large = {"pooled": states.pooled} | {f"{name}_rows": rows for name, rows in states.rows.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        for name, array in large.items():
            array.flush()
            archive.write(array.filename, f"{name}.npy")
    return "arrays with offsets"


def write_parquet(states: HiddenStates, path: Path) -> str:
    """A line per sample: `id`, `split`, `sentence`, `label`, `class`, `value`, `pooled` and by modality a list of rows.

    Returns: what was written, in words; memory holds one row group of about 32 MB. Raises: `MemofastError` where
        pyarrow is not installed.
    """
    pa, parquet = arrow()
    width = states.pooled.shape[1]
    vector = pa.list_(pa.float32(), width)
    fields = {
        "id": pa.string(),
        "split": pa.string(),
        "sentence": pa.string(),
        "label": pa.int64(),
        "class": pa.string(),
    }
    fields |= {"value": pa.float32()} if states.values is not None else {}
    fields |= {"pooled": vector, **{name: pa.list_(vector) for name in MODALITIES}}
    schema = pa.schema(list(fields.items()))
    groups = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for begin, end in _pieces(states):
            chosen, labels = slice(begin, end), states.labels[begin:end]
            columns = {
                "id": pa.array(states.ids[chosen]),
                "split": pa.array(states.splits[chosen]),
                "sentence": pa.array([states.text(sample)[0] for sample in range(begin, end)]),
                "label": pa.array(labels, mask=labels < 0),
                "class": pa.array([states.classes[n] if n >= 0 else None for n in labels], pa.string()),
                "pooled": pa.FixedSizeListArray.from_arrays(pa.array(states.pooled[chosen].ravel()), width),
            }
            if states.values is not None:
                columns["value"] = pa.array(states.values[chosen])
            for name, own in states.offsets.items():
                rows = pa.array(np.asarray(states.rows[name][own[begin] : own[end]]).ravel(), pa.float32())
                vectors = pa.FixedSizeListArray.from_arrays(rows, width)
                columns[name] = pa.ListArray.from_arrays((own[begin : end + 1] - own[begin]).astype(np.int32), vectors)
            writer.write_table(pa.table([columns[name] for name in fields], schema=schema))
            groups += 1
    return f"{groups} row groups"


def arrow():
    """pyarrow and its Parquet part. Raises: `MemofastError` where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MemofastError('Parquet needs pyarrow: pip install "memofast[parquet]"') from None
    return pyarrow, pyarrow.parquet


def _pieces(states: HiddenStates) -> Iterator[tuple[int, int]]:
    """Runs of samples, first and last, whose rows take about as much as a row group may, or of one sample."""
    width = 4 * states.pooled.shape[1]
    ends = width * sum(own[1:] for own in states.offsets.values()) + width * np.arange(1, len(states.ids) + 1)
    begin = 0
    while begin < len(ends):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _PIECE, side="right")))
        yield begin, end
        begin = end

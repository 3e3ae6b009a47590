"""Files of features, each written in pieces: npz and Parquet."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.inference.hidden_states.rows import MODALITIES, Features

_PIECE = 32 << 20  # bytes of rows in a row group


def write_npz(features: Features, path: Path) -> str:
    """Arrays and offsets, no pickle: `ids`, `splits`, `labels`, `classes`, `values`, `pooled`, and by modality `rows` and `offsets`.

    Returns: what was written, in words. The memory maps are copied as they are; what is about samples is in memory.
    """
    small = {"ids": np.array(features.ids), "splits": np.array(features.splits), "labels": features.labels}
    small["classes"] = np.array(features.classes, dtype=str)
    if features.values is not None:
        small["values"] = features.values
    small |= {f"{name}_offsets": own for name, own in features.offsets.items()}
    large = {"pooled": features.pooled} | {f"{name}_rows": rows for name, rows in features.rows.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        for name, array in large.items():
            array.flush()
            archive.write(array.filename, f"{name}.npy")
    return "arrays with offsets"


def write_parquet(features: Features, path: Path) -> str:
    """A line per sample: `id`, `split`, `sentence`, `label`, `class`, `value`, `pooled` and by modality a list of rows.

    Returns: what was written, in words; memory holds one row group of about 32 MB. Raises: `MemofastError` where pyarrow is not installed.
    """
    pa, parquet = arrow()
    width = features.pooled.shape[1]
    vector = pa.list_(pa.float32(), width)
    fields = {
        "id": pa.string(),
        "split": pa.string(),
        "sentence": pa.string(),
        "label": pa.int64(),
        "class": pa.string(),
    }
    fields |= {"value": pa.float32()} if features.values is not None else {}
    fields |= {"pooled": vector, **{name: pa.list_(vector) for name in MODALITIES}}
    schema = pa.schema(list(fields.items()))
    groups = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for begin, end in _pieces(features):
            chosen, labels = slice(begin, end), features.labels[begin:end]
            columns = {
                "id": pa.array(features.ids[chosen]),
                "split": pa.array(features.splits[chosen]),
                "sentence": pa.array([features.text(sample)[0] for sample in range(begin, end)]),
                "label": pa.array(labels, mask=labels < 0),
                "class": pa.array([features.classes[n] if n >= 0 else None for n in labels], pa.string()),
                "pooled": pa.FixedSizeListArray.from_arrays(pa.array(features.pooled[chosen].ravel()), width),
            }
            if features.values is not None:
                columns["value"] = pa.array(features.values[chosen])
            for name, own in features.offsets.items():
                rows = pa.array(np.asarray(features.rows[name][own[begin] : own[end]]).ravel(), pa.float32())
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


def _pieces(features: Features) -> Iterator[tuple[int, int]]:
    """Runs of samples, first and last, whose rows take about as much as a row group may, or of one sample."""
    width = 4 * features.pooled.shape[1]
    ends = width * sum(own[1:] for own in features.offsets.values()) + width * np.arange(1, len(features.ids) + 1)
    begin = 0
    while begin < len(ends):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _PIECE, side="right")))
        yield begin, end
        begin = end

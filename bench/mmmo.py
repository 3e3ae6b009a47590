"""The pickle of MMMO's word-aligned features, from the HDF5 files of the memory fusion network's authors.

    pip install h5py
    python bench/mmmo.py FOLDER mmmo.pkl
    memofast import-features mmmo.pkl --out CORPUS

The training part has no text there, so that face and speech rows alone are kept; scores from 1 to 5 become -2 to 2.
"""

import pickle
import sys
from pathlib import Path

import numpy as np

PARTS = {"train": "train", "valid": "valid", "test": "test"}


def table(path: Path) -> np.ndarray:
    """The one array of an HDF5 file, fp32."""
    import h5py

    with h5py.File(path) as file:
        (name,) = file
        return np.asarray(file[name], np.float32)


def main(folder: Path, out: Path) -> None:
    found = {}
    for name, part in PARTS.items():
        scores = table(folder / f"y_{part}.h5")
        rows = {store: table(folder / f"{own}_{part}.h5") for store, own in (("audio", "audio"), ("vision", "video"))}
        found[name] = {**rows, "regression_labels": scores - 3}
    out.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

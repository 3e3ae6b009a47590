"""Vectors of samples read from one cache, beside one safetensors file for each.

    python -m pytest bench/test_feature_cache.py

Rules: 100,000 vectors of 768 float32 values, all of them in the operating system's memory; batches of 64 in random
order, of which tensors [64, 768] are made. Keys are made ahead in both. At least 20 is aimed at. MEMOFAST_BENCH_ENTRIES
asks for fewer.
"""

import os

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from memofast.store.feature_cache import FeatureCache

ENTRIES, WIDTH, BATCH = int(os.environ.get("MEMOFAST_BENCH_ENTRIES", 100_000)), 768, 64


def test_reading(side_by_side, tmp_path):
    draws = np.random.default_rng(3)
    cache, files = FeatureCache(tmp_path / "cache"), tmp_path / "files"
    files.mkdir()
    keys = [draws.bytes(48) for _ in range(ENTRIES)]
    for first in range(0, ENTRIES, 1000):
        some = keys[first : first + 1000]
        vectors = draws.standard_normal((len(some), WIDTH), np.float32)
        cache.add(dict(zip(some, vectors, strict=True)))
        for key, vector in zip(some, torch.from_numpy(vectors), strict=True):
            save_file({"T": vector.clone()}, files / f"{key.hex()}.safetensors")
    order = draws.permutation(ENTRIES)
    chosen = [keys[number] for number in order[: ENTRIES // BATCH * BATCH]]
    batches = iter(np.arange(10**9))

    def batch():
        place = int(next(batches)) * BATCH % len(chosen)
        return chosen[place : place + BATCH]

    def ours():
        return torch.from_numpy(np.stack(cache.read(batch())))

    def theirs():
        return torch.stack([load_file(files / f"{key.hex()}.safetensors")["T"] for key in batch()])

    for key in chosen:  # everything is read once before anything is measured
        load_file(files / f"{key.hex()}.safetensors")
    cache.read(chosen)
    side_by_side(ours, {"a file each": theirs}, target={"a file each": 20}, entries=ENTRIES, batch=BATCH, width=WIDTH)
    cache.close()

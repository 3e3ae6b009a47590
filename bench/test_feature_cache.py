"""Vectors of samples kept in a cache: reading them beside one safetensors file for each, and an epoch with and without.

    python -m pytest bench/test_feature_cache.py

Rules of reading: 100,000 vectors of 768 float32 values, all of them in the operating system's memory; batches of 64 in
random order, of which tensors [64, 768] are made. Keys are made ahead in both. At least 20 is aimed at.
MEMOFAST_BENCH_ENTRIES asks for fewer. Of an epoch: 512 sentences of the demo, a frozen BERT of MiniLM's size with
random weights in a tower, its map and head learn; the cache is full; validation excluded.
"""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import yaml
from epochs import Epochs
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizerFast

from memofast.data.demo import demo_corpus, vocabulary
from memofast.store.feature_cache import FeatureCache
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read

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


SAMPLES = 512


def epochs(folder: Path, *overrides: str) -> Epochs:
    """Of the recipe beside a folder."""
    return Epochs(make_fine_tuning_plan(read(str(folder.parent / "recipe.yaml"), list(overrides))), folder)


def test_epoch(side_by_side, tmp_path):
    words = vocabulary()
    demo_corpus(tmp_path / "corpus", {"train": SAMPLES, "validation": 32, "test": 32})
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "bert")
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(tmp_path / "bert")
    recipe = {
        "corpus": str(tmp_path / "corpus"), "settings_chosen_on": "nothing", "baselines": False,
        "model": {"family": "towers", "text": {"init": str(tmp_path / "bert"), "train": "frozen"}},
        "train": {"epochs": 1000, "samples": 32, "precision": "fp32", "device": "cpu"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    plain = epochs(tmp_path / "plain")
    kept = epochs(tmp_path / "kept", f"model.cache.path={tmp_path / 'cache'}")
    with closing(plain), closing(kept):
        kept.run()
        side_by_side(kept.run, {"without": plain.run}, rounds=5, samples=SAMPLES)

"""Caches of features and weights kept once: made, damaged, and read so that a wrong number does not pass in silence."""

import os
import random
import shutil
from pathlib import Path

import children
import lmdb
import numpy as np
from workshop import COMMANDS, tuned_by_half

_sound: dict = {}  # what this process read first, undamaged


def make_kept(folder: Path) -> None:
    """A cache that was filled, with vectors of other encoders, and runs whose weights are linked to a kept file."""
    (folder / "filled").mkdir()
    filled = children.command(COMMANDS["cache fill"].line(folder, folder / "filled"), folder)
    assert not filled.code, filled.error
    children.done(lambda: _further(folder / "filled" / "features"))
    (folder / "kept").mkdir()
    tuned = children.command(tuned_by_half(folder, folder, "symbolic"), folder / "kept")
    assert not tuned.code, tuned.error
    (run,) = (folder / "kept" / "runs").glob("finetune-*")
    run.rename(run.with_name("half"))


def _further(folder: Path) -> None:
    """Vectors of 200 numbers and of 1,200: LMDB keeps those within its pages, and these on pages of their own."""
    from memofast.store.feature_cache import open_cache

    draws, cache = np.random.default_rng(7), open_cache(folder)
    for number in range(40):
        key, vector = draws.bytes(48), draws.normal(size=200 if number % 2 else 1200).astype(np.float32)
        cache.add({key: vector})
        if number % 7 == 0:
            cache.remove([key])  # pages get free
            cache.add({key: vector})


def read_cache(folder: Path) -> None:
    """Read every vector, count, verify, and add some: whatever is read must be what was kept."""
    from memofast.store.feature_cache import FeatureCache

    folder = folder / "features"
    if "keys" not in _sound:
        with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
            _sound["keys"] = [bytes(key) for key, _ in transaction.cursor()]
    cache = FeatureCache(folder)
    try:
        keys = _sound["keys"]
        wanted = _sound.setdefault("vectors", cache.read(keys))
        for _ in range(2):
            for vector, found in zip(wanted, cache.read(keys), strict=True):
                assert found is None or (found.dtype == vector.dtype and np.array_equal(found, vector)), "other numbers"
            cache.makers(), cache.damaged()
            lacking = dict(zip(keys, wanted, strict=True))
            cache.add({key: vector for key, vector in lacking.items() if cache.read([key])[0] is None})
            cache.add({bytes([number] * 48): np.full(300, number, np.float32) for number in range(5)})
        cache.remove(cache.damaged())
        cache.prune(20_000)
        assert len(cache) == sum(one.entries for one in cache.makers().values())
    finally:
        cache.close()


def values(path: Path, draw: random.Random) -> None:
    """Vectors of a cache changed in their bytes, their length or their place, under keys that are right."""
    environment = lmdb.open(str(path.parent), map_size=1 << 26, lock=False)
    with environment, environment.begin(write=True) as transaction:
        keys = [bytes(key) for key, _ in transaction.cursor()]
        for key in draw.sample(keys, min(3, len(keys))):
            value = transaction.get(draw.choice((key, key, draw.choice(keys))))
            changed = bytearray(value)
            if value == transaction.get(key):
                changed[draw.choice((draw.randrange(16), draw.randrange(len(value))))] ^= 1 << draw.randrange(8)
            length = draw.choice((len(value), len(value), draw.randrange(len(value))))
            transaction.put(key, bytes(changed[:length]))
        if draw.random() < 0.1:
            transaction.put(draw.choice((b"\xff\xfe", b"a", b"z" * 400)), b"")


def links(path: Path, draw: random.Random) -> None:
    """A link, or a file in its place, leads elsewhere: nowhere, to itself, to a folder, to other weights."""
    others = ["nowhere.safetensors", path.name, "..", "/dev/null", "config.json", "model-00001-of-00002.safetensors"]
    weights = next(path.parent.parent.parent.glob("weights/*.safetensors"))
    path.unlink()
    match draw.randrange(4):
        case 0 | 1:
            path.symlink_to(draw.choice(others))
        case 2:
            weights.unlink()  # what the link led to
            path.symlink_to(os.path.relpath(weights, path.parent))
        case _:
            copied = path.with_name(draw.choice(others[-2:]))
            shutil.copyfile(copied if copied.is_file() else path.parent / "config.json", path)


def read_kept_model(folder: Path) -> None:
    """Open the model of a run and ask it: its answers must be those of the undamaged one."""
    from memofast.data import Corpus
    from memofast.evaluate.model_on_corpus import open_model
    from memofast.inference.split_predictions import label_space_of, predict_split

    model = open_model(folder / "runs" / "half", "cpu").model
    split = Corpus.open(folder.parent.parent / "inputs" / "moods").split("test")
    found = predict_split(model, split, label_space_of(model)).scores
    assert np.array_equal(found, _sound.setdefault("scores", found)), "other answers"

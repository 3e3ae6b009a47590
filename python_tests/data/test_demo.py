import numpy as np
import pytest

from memofast.cache import cache_folder
from memofast.data import Corpus
from memofast.data import demo as demo_module
from memofast.data.demo import EMOTIONS, demo_corpus, vocabulary

SPLITS = {"train": 30, "validation": 6}


def digests(folder):
    return {modality: store.meta["digest"] for modality, store in Corpus.open(folder).stores.items()}


def test_deterministic(tmp_path):
    assert digests(demo_corpus(tmp_path / "a", SPLITS)) == digests(demo_corpus(tmp_path / "b", SPLITS))


def test_contents(tmp_path):
    split = Corpus.open(demo_corpus(tmp_path / "a", SPLITS)).split("train")
    batch = split.pack(np.arange(len(split)))
    assert batch.samples == 30 and batch.visual.shape[1] == 344 and batch.speech.shape[1] == 96
    assert int(batch.token_ids.max()) < len(vocabulary())
    assert batch.targets["soft_labels"].shape[1] == len(EMOTIONS)
    assert set(batch.targets["label"].tolist()) <= set(range(len(EMOTIONS)))


def test_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_module, "write_corpus", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo_corpus(tmp_path / "a", SPLITS)
    assert list(tmp_path.iterdir()) == []


def test_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMOFAST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "memofast"
    monkeypatch.setenv("MEMOFAST_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"

import numpy as np
import pytest
import torch

from memofast.cache_home import cache_folder
from memofast.data import Corpus
from memofast.data import demo as demo_module
from memofast.data.demo import EMOTIONS, demo_corpus, vocabulary
from memofast.store.text_writer import PARTS_OF_SPEECH, POLARITIES

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


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return Corpus.open(demo_corpus(tmp_path_factory.mktemp("demo") / "a", {"train": 200})).split("train")


def test_words_have_a_part_of_speech_and_a_polarity(train):
    text, found = train.corpus.stores["text"], {}
    for id in text.ids:
        record = text.read(id)
        words, rows = bytes(record["utf8"]).decode().split(), record["words"].ravel()
        both = list(zip(record["part_of_speech"].ravel().tolist(), record["polarity"].ravel().tolist(), strict=True))
        assert both[0] == both[-1] == (4, 2)
        for row in np.flatnonzero(rows >= 0).tolist():
            found.setdefault(words[rows[row]], set()).add((PARTS_OF_SPEECH[both[row][0]], POLARITIES[both[row][1]]))
    assert all(len(told) == 1 for told in found.values())
    wanted = {
        "feel": ("verb", "neutral"), "journey": ("noun", "neutral"), "so": ("adverb", "neutral"),
        "the": ("other", "neutral"), "laugh": ("verb", "positive"), "scared": ("adjective", "negative"),
        "wonderful": ("adjective", "positive"), "normal": ("adjective", "neutral"), "stunned": ("adjective", "neutral"),
    }  # fmt: skip
    assert {word: found[word] for word in wanted} == {word: {told} for word, told in wanted.items()}


def test_pseudo_labels_are_surer_of_moods(train):
    emotions, labels = train.facts.target("emotions"), train.facts.target("label")
    known = emotions.sum(1) > 0
    assert 4 <= (~known).sum() <= 16 and np.allclose(emotions[known].sum(1), 1)
    assert (emotions.argmax(1) == labels)[known].mean() > 0.97
    text = train.corpus.stores["text"]
    moods = np.array(["you" not in bytes(text.read(id)["utf8"]).decode().split() for id in train.ids])
    sure = emotions[np.arange(200), labels]
    assert sure[known & moods].mean() > 0.8 > 0.6 > sure[known & ~moods].mean() > 0.4


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


def test_the_raw_corpus_holds_the_same_clips(tmp_path):
    ready = Corpus.open(demo_corpus(tmp_path / "ready", SPLITS))
    raw = Corpus.open(demo_corpus(tmp_path / "raw", SPLITS, raw=True))
    assert raw.raw == {"visual", "sound"} and not ready.raw
    for name in ("text", "speech"):
        assert raw.stores[name].meta["digest"] == ready.stores[name].meta["digest"]
    split = raw.split("train").reading(["sound"])
    assert np.array_equal(split.keys, ready.split("train").keys)
    batch = split.pack(np.arange(len(split)), dtype=torch.bfloat16)
    assert batch.visual.dtype == torch.uint8 and batch.visual.shape[1] == 24 * 24
    assert batch.speech.dtype == torch.bfloat16
    sound = batch.streams["sound"]
    assert sound.values.dtype == torch.int16 and sound.values.shape[1] == 320
    id = split.ids[int(np.flatnonzero(split.lengths[:, 1])[0])]
    own, theirs = raw.stores["visual"].read(id), ready.stores["visual"].read(id)
    assert np.array_equal(own["soft_labels"], theirs["soft_labels"][::3])
    everything = batch.visual.float()
    assert np.array_equal(batch.visual[: len(own["rows"])].numpy(), own["rows"]) and 110 < everything.mean() < 146
    assert 20 < everything.std() < 70 and 1000 < sound.values.float().std() < 9000

import json
import pickle

import numpy as np
import pytest
import torch

from memofast.data import Capacity, Corpus, epoch, sample_key, write_corpus
from memofast.errors import MemofastError


def test_sample_key_is_fixed():
    assert sample_key("grid", "s1/bbaf2n") == -7331559815619369910


def expected_rows(corpus, modality, id):
    store = corpus.stores[modality]
    return store.read(id)["rows"] if id in store.rows_of else np.zeros((0, store.width), np.float16)


def test_pack_is_what_the_stores_hold(make_corpus):
    corpus = make_corpus()
    split = corpus.split("train")
    indices = np.random.default_rng(0).permutation(len(split))
    batch = split.pack(indices)
    ids = [split.ids[i] for i in indices]
    assert batch.ids == ids
    assert batch.sample_keys.tolist() == [sample_key("demo", id) for id in ids]
    text = [corpus.stores["text"].read(id) for id in ids]
    assert batch.token_ids.tolist() == np.concatenate([t["tokens"] for t in text]).tolist()
    assert batch.word_ids.tolist() == np.concatenate([t["words"] for t in text]).tolist()
    assert batch.targets["lexicon"].tolist() == np.concatenate([t["lexicon"] for t in text]).tolist()
    assert batch.targets["label"].tolist() == [int(t["label"][0]) for t in text]
    for modality, width in (("visual", 13), ("speech", 16)):
        rows = np.concatenate([expected_rows(corpus, modality, id) for id in ids])
        packed = getattr(batch, modality).numpy()
        assert packed.dtype == np.float16
        np.testing.assert_array_equal(packed[:, :width], rows)
        assert packed.shape[1] % 8 == 0
        assert (packed[:, width:] == 0).all()
    soft = [corpus.stores["visual"].read(id)["soft_labels"].reshape(-1, 3) for id in ids]
    np.testing.assert_array_equal(batch.targets["soft_labels"].numpy(), np.concatenate(soft).astype(np.float32))
    lengths = split.lengths[indices]
    for column, name in enumerate(("text", "visual", "speech")):
        offsets = getattr(batch, f"{name}_offsets")
        assert offsets.dtype == torch.int32
        assert offsets.tolist() == [0, *np.cumsum(lengths[:, column])]
    assert batch.offsets.tolist() == [0, *np.cumsum(lengths.sum(1))]
    assert 0 <= batch.longest - lengths.sum(1).max() < 32 and batch.longest % 32 == 0
    assert batch.offsets[-1] == batch.rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pack_converts(make_corpus, dtype):
    split = make_corpus().split("train")
    stored, converted = split.pack(range(9)), split.pack(range(9), dtype=dtype)
    assert torch.equal(converted.speech, stored.speech.to(dtype))
    assert torch.equal(converted.visual, stored.visual.to(dtype))


def test_absent_modalities(make_corpus):
    corpus = make_corpus("text_only", modalities=())
    batch = corpus.split("train").pack([0, 6])  # the second is [CLS] alone
    assert corpus.modalities == ("text",)
    assert corpus.targets == {"label", "lexicon"}
    assert batch.visual is None and batch.speech is None
    assert batch.visual_offsets.tolist() == [0, 0, 0]
    assert batch.token_ids[-1] == 101
    faceless = make_corpus("all").split("train").pack([2, 5])
    assert faceless.visual.shape == (0, 16)
    assert faceless.targets["soft_labels"].shape == (0, 3)
    empty = make_corpus("more").split("train").pack([])
    assert empty.samples == 0 and empty.offsets.tolist() == [0]


def test_corpus_facts(make_corpus):
    corpus = make_corpus()
    assert corpus.targets == {"label", "lexicon", "soft_labels"}
    assert corpus.classes["soft_labels"] == ["neutral", "happy", "sad"]
    assert (corpus.width("visual"), corpus.width("speech")) == (13, 16)
    assert corpus.splits == ("train", "validation")
    split = pickle.loads(pickle.dumps(corpus.split("validation")))
    assert split.pack([1]).ids == ["clip033"]


def test_long_samples_are_left_out_and_counted(make_corpus):
    corpus = make_corpus()
    whole = corpus.split("train")
    short = corpus.split("train", longest=(None, 5, 6))
    assert short.excluded == (whole.lengths > [99, 5, 6]).any(1).sum() > 0
    assert len(short) + short.excluded == len(whole)
    assert short.lengths.max(0).tolist() <= [99, 5, 6]


def test_epoch_takes_each_sample_once_in_order(make_corpus):
    split = make_corpus().split("train")
    capacity = Capacity(7, 40, 30, 30)
    batches = list(epoch(split, capacity))
    assert [id for batch in batches for id in batch.ids] == split.ids
    for batch in batches:
        assert batch.samples <= 7
        assert batch.token_ids.shape[0] <= 40
        assert batch.visual.shape[0] <= 30 and batch.speech.shape[0] <= 30


def test_sample_longer_than_a_batch_is_named(make_corpus):
    split = make_corpus().split("train")
    with pytest.raises(MemofastError, match=r"sample 'clip\d+' of corpus demo .* raise the capacity or leave out"):
        next(epoch(split, Capacity(7, 40, 2, 30)))


def test_bad_corpora_are_refused(make_corpus, tmp_path):
    corpus = make_corpus()
    text, visual = corpus.stores["text"].path, corpus.stores["visual"].path
    with pytest.raises(MemofastError, match="no corpus at"):
        Corpus.open(tmp_path)
    with pytest.raises(MemofastError, match="no split 'test'; it has train, val"):
        corpus.split("test")
    with pytest.raises(MemofastError, match="has no samples"):
        corpus.split("train", longest=(0, 0, 0))
    for splits, says in (
        ({"train": ["clip000", "clip000"]}, "'clip000' stands in split train and again in train"),
        ({"train": ["clip000"], "validation": ["clip000"]}, "split train and again in val"),
        ({"train": ["nobody"]}, "'nobody' of split train is not in store"),
    ):
        with pytest.raises(MemofastError, match=says):
            write_corpus(tmp_path / "bad", "bad", {"text": text}, splits)
    with pytest.raises(MemofastError, match="needs a text store"):
        write_corpus(tmp_path / "bad", "bad", {"visual": visual}, {})
    with pytest.raises(MemofastError, match="holds features, not text"):
        write_corpus(tmp_path / "bad", "bad", {"text": visual}, {})
    (corpus.path / "splits/validation.txt").write_text("clip000\nnobody\n")
    with pytest.raises(MemofastError, match="'nobody' of split validation is not in store"):
        corpus.split("validation")
    meta = json.loads((text / "meta.json").read_text())
    (text / "meta.json").write_text(json.dumps(meta | {"complete": False}))
    with pytest.raises(MemofastError, match="is not finished"):
        Corpus.open(corpus.path)
    (corpus.path / "corpus.json").write_text("[]")
    with pytest.raises(MemofastError, match="not a corpus description"):
        Corpus.open(corpus.path)


def test_words_of_a_split_come_without_features(make_corpus):
    split = make_corpus().split("train")
    whole, words = split.pack(range(20)), split.words.pack(range(20))
    assert words.visual is None and words.speech is None and words.ids == whole.ids
    assert torch.equal(words.token_ids, whole.token_ids) and torch.equal(words.offsets, whole.text_offsets)
    assert torch.equal(words.targets["label"], whole.targets["label"]) and "soft_labels" not in words.targets

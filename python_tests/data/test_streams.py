"""Rows beside the modalities: packed as their stores hold them, hidden with what they were made of, and bounded."""

import numpy as np
import pytest
import torch

from memofast.data import Capacity, Corpus, Loader, PackedBatch, Stream, epoch, write_corpus
from memofast.data.conditions import CONDITIONS, keep
from memofast.errors import MemofastError

INDICES = np.array([8, 3, 0, 21, 14, 5, 7])  # 3 and 7 lack both streams
CAPACITY = Capacity(11, 99, 88, 90, streams={"glove": 80, "raw": 77})


@pytest.fixture
def split(make_corpus):
    return make_corpus(streams=True).split("train").reading(["glove", "raw"])


def test_a_stream_is_what_its_store_holds(split):
    batch = split.pack(INDICES)
    assert list(batch.streams) == ["glove", "raw"]
    for name, width, modality in (("glove", 9, "text"), ("raw", 6, "visual")):
        store, stream = split.corpus.streams[name][0], batch.streams[name]
        rows = [store.read(split.ids[i])["rows"] if i % 4 != 3 else np.zeros((0, width), np.float16) for i in INDICES]
        assert stream.modality == modality
        assert stream.offsets.dtype == torch.int32
        assert stream.offsets.tolist() == [0, *np.cumsum([len(own) for own in rows])]
        assert stream.values.dtype == torch.float16 and stream.values.shape[1] == -(-width // 8) * 8
        np.testing.assert_array_equal(stream.values[:, :width].numpy(), np.concatenate(rows))
        assert not stream.values[:, width:].any()
        assert split.stream_lengths[name][INDICES].tolist() == [len(own) for own in rows]
    assert split.pack(INDICES, dtype=torch.bfloat16).streams["raw"].values.dtype == torch.bfloat16


def test_modalities_are_what_they_are_without_streams(split):
    batch, without = split.pack(INDICES), split.reading([]).pack(INDICES)
    assert without.streams == {} and torch.equal(without.offsets, batch.offsets)
    for name in ("token_ids", "visual", "speech"):
        assert torch.equal(getattr(without, name), getattr(batch, name))


def test_samples_without_any_rows(split):
    for indices in ([3, 7, 11], []):
        batch = split.pack(indices)
        for stream in batch.streams.values():
            assert stream.values.shape[0] == 0 and stream.offsets.tolist() == [0] * (len(indices) + 1)


def test_streams_that_a_corpus_does_not_have(make_corpus, split, tmp_path):
    with pytest.raises(MemofastError, match="has no stream 'audio'; it has raw, glove"):
        split.reading(["glove", "audio"])
    with pytest.raises(MemofastError, match="has no stream 'glove'; it has none"):
        make_corpus("plain").split("train").reading(["glove"])
    text, raw = (split.corpus.path / name for name in ("text", "raw"))
    for streams in ({"speech": (raw, "visual")}, {"raw": (raw, "faces")}):
        with pytest.raises(MemofastError, match="has a name of its own and is of text, visual, speech"):
            write_corpus(tmp_path / "bad", "bad", {"text": text}, {}, streams=streams)
    again = Corpus.open(split.corpus.path)
    assert {name: modality for name, (_, modality) in again.streams.items()} == {"raw": "visual", "glove": "text"}
    assert (again.width("glove"), again.width("raw"), again.width("audio")) == (9, 6, 0)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_stream_is_hidden_with_its_modality(split, condition):
    batch = split.pack(INDICES)
    kept = keep(batch, condition)
    for name, letter in (("glove", "l"), ("raw", "v")):
        ours, whole = kept.streams[name], batch.streams[name]
        if letter in condition:
            assert torch.equal(ours.values, whole.values) and torch.equal(ours.offsets, whole.offsets)
        else:
            assert ours.values.shape == (0, whole.values.shape[1]) and ours.offsets.tolist() == [0] * 8
            assert ours.offsets.dtype == torch.int32
    assert len(batch.streams["raw"].values) and len(batch.streams["glove"].values)


def test_padding_and_back(split):
    batch = split.pack(INDICES)
    padded = batch.to_padded()
    rows, lengths, modality = padded.streams["raw"]
    assert modality == "visual" and rows.shape == (7, int(lengths.max()), 8)
    assert lengths.tolist() == split.stream_lengths["raw"][INDICES].tolist()
    start, stop = batch.streams["raw"].offsets[2:4].tolist()
    assert torch.equal(rows[2, : stop - start], batch.streams["raw"].values[start:stop])
    again = PackedBatch.from_padded(padded)
    for name, stream in batch.streams.items():
        assert torch.equal(again.streams[name].values, stream.values)
        assert torch.equal(again.streams[name].offsets, stream.offsets)
        assert again.streams[name].offsets.dtype == torch.int32 and again.streams[name].modality == stream.modality


def test_fixed_shapes_take_over_another_batch(split):
    first, second = split.pack(INDICES), split.pack([1, 2, 6])
    placed = first.padded_to(CAPACITY)
    for batch in (first, second):
        for name, stream in placed.streams.items():
            own, rows = batch.streams[name], CAPACITY.streams[name]
            used = len(own.values)
            assert stream.values.shape == (rows, own.values.shape[1]) and stream.offsets.shape == (12,)
            assert torch.equal(stream.values[:used], own.values)
            assert stream.offsets.tolist() == own.offsets.tolist() + [used] * (12 - len(own.offsets))
            assert batch is second or not stream.values[used:].any()
        placed.copy_from(second)
    large = split.pack(np.arange(11))
    small = Capacity(11, 99, 99, 99, streams={"glove": 80, "raw": len(large.streams["raw"].values) - 1})
    with pytest.raises(ValueError, match=r"^raw: the batch has \d+ rows, its capacity is"):
        large.padded_to(small)


def test_batches_never_exceed_the_rows_of_a_stream(split):
    capacity = Capacity(9, 99, 99, 99, streams={"glove": 30, "raw": 23})
    batches = list(epoch(split, capacity))
    assert [id for batch in batches for id in batch.ids] == split.ids
    for batch in batches:
        assert len(batch.streams["glove"].values) <= 30 and len(batch.streams["raw"].values) <= 23
    assert len(batches) > -(-len(split) // 9)
    loader = Loader([Stream(split)], capacity=capacity, seed=3)
    for update, _ in zip(loader, range(12), strict=False):
        streams = update.micro_batches[0].batch.streams
        assert len(streams["glove"].values) <= 30 and len(streams["raw"].values) <= 23
    with pytest.raises(
        MemofastError,
        match=r"sample 'clip\d+' of corpus demo has .* \d+ glove, \d+ raw rows; a batch holds 99, 99, 99, 30, 5",
    ):
        next(epoch(split, Capacity(9, 99, 99, 99, streams={"glove": 30, "raw": 5})))


def test_corpora_whose_streams_differ_in_width_are_refused(make_corpus, split):
    other = make_corpus("other", streams=True).split("train").reading(["raw", "glove"])
    other.corpus.streams["glove"][0].columns["rows"] = ("float16", 11)
    with pytest.raises(MemofastError, match="glove rows are 9 wide in corpus demo and 11 wide in other"):
        Loader([Stream(split), Stream(other)], capacity=CAPACITY, seed=1)

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from memofast.data import Capacity, PackedBatch


def assert_equal(one, two):
    for f in fields(one):
        a, b = getattr(one, f.name), getattr(two, f.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), f.name
        elif f.name == "streams":
            assert list(a) == list(b)
            for one, other in zip(a.values(), b.values(), strict=True):
                assert torch.equal(one.values, other.values) and torch.equal(one.offsets, other.offsets)
                assert one.offsets.dtype == other.offsets.dtype and one.modality == other.modality
        elif f.name == "targets":
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        else:
            assert a == b


@pytest.mark.parametrize("modalities", [("visual", "speech"), ("speech",), ()])
def test_padding_and_back(make_corpus, modalities):
    batch = make_corpus(modalities=modalities).split("train").pack(range(13))
    padded = batch.to_padded()
    assert padded.token_ids.shape == (13, int((batch.text_offsets[1:] - batch.text_offsets[:-1]).max()))
    assert_equal(PackedBatch.from_padded(padded), batch)


def test_padded_rows_stand_where_they_belong(make_corpus):
    batch = make_corpus().split("train").pack(range(13))
    padded = batch.to_padded()
    for sample in range(13):
        rows = batch.visual[batch.visual_offsets[sample] : batch.visual_offsets[sample + 1]]
        assert torch.equal(padded.visual[sample, : len(rows)], rows)
        assert (padded.visual[sample, len(rows) :] == 0).all()
        assert (padded.word_ids[sample, padded.text_lengths[sample] :] == -1).all()


def test_padded_to_capacity_has_static_shapes(make_corpus):
    split = make_corpus().split("train")
    capacity = Capacity(20, 200, 150, 160, longest=96)
    batch = split.pack(range(13))
    static = batch.padded_to(capacity)
    shapes = {
        f.name: getattr(static, f.name).shape[0]
        for f in fields(static)
        if f.name not in ("targets", "ids", "longest", "streams")
    }
    rows = {"token_ids": 200, "word_ids": 200, "visual": 150, "speech": 160, "sample_keys": 20}
    assert shapes == rows | dict.fromkeys(("text_offsets", "visual_offsets", "speech_offsets", "offsets"), 21)
    assert static.rows == capacity.rows and static.longest == 96
    assert torch.equal(static.offsets[:14], batch.offsets)
    assert (static.offsets[13:] == batch.offsets[-1]).all()
    assert torch.equal(static.speech[: batch.speech.shape[0]], batch.speech)
    assert (static.speech[batch.speech.shape[0] :] == 0).all()
    assert (static.targets["label"][13:] == -1).all()
    assert static.targets["soft_labels"].shape == (150, 3)
    with pytest.raises(ValueError, match=r"the batch has .* its capacity is 3"):
        batch.padded_to(Capacity(20, 200, 3, 160))
    larger = split.pack(range(12))
    rows = len(split.pack(range(2)).visual)
    small = split.pack(range(2)).padded_to(Capacity(12, 200, rows, 160))
    with pytest.raises(
        ValueError, match=rf"^visual: the batch has {len(larger.visual)} rows, its capacity on cpu is {rows};"
    ):
        small.copy_from(larger)


@pytest.mark.parametrize("chosen", [[3, 11, 5, 0], [6], [], [2, 2, 9]])
def test_some_samples_are_a_batch_of_their_own(make_corpus, chosen):
    """In the order asked for, with all that follows rows, samples and streams: as if they had been packed so."""
    split = make_corpus(streams=True).split("train").reading(["glove", "raw"])
    indices = np.array([4, 0, 9, 21, 30, 1, 13, 2, 6, 7, 8, 5])
    shown = np.roll(indices, 5)
    batch = split.pack(indices, {"visual": shown})
    batch.targets["wanted"] = torch.rand(12, 2)
    samples = torch.tensor(chosen, dtype=torch.int64)
    ours, expected = batch.select(samples), split.pack(indices[chosen], {"visual": shown[chosen]})
    assert ours.longest == batch.longest
    assert torch.equal(ours.targets.pop("wanted"), batch.targets["wanted"][samples])
    assert_equal(replace(ours, longest=expected.longest), expected)

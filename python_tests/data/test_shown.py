"""Samples that show the rows of others: which rows, whose they are, and what follows them."""

import numpy as np
import pytest
import torch

from memofast.data import Capacity, Loader, Stream, epoch
from memofast.data.conditions import keep
from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError

INDICES = np.array([4, 0, 9, 21, 2])
OWNERS = np.array([4, 21, 2, 10, 0])  # 2 has no faces


@pytest.fixture
def split(make_corpus):
    return make_corpus().split("train")


def rows(batch, modality, sample):
    return batch.rows_of(modality)[slice(*batch.offsets_of(modality)[sample : sample + 2].tolist())]


def test_rows_are_the_partners_and_all_else_is_the_samples_own(split):
    own, other = split.pack(INDICES), split.pack(OWNERS)
    batch = split.pack(INDICES, {"visual": OWNERS})
    for sample in range(5):
        assert torch.equal(rows(batch, "visual", sample), rows(other, "visual", sample))
        for modality in ("text", "speech"):
            assert torch.equal(rows(batch, modality, sample), rows(own, modality, sample))
    assert torch.equal(batch.visual_offsets, other.visual_offsets)
    assert (
        batch.offsets.diff().tolist() == (own.text_offsets + other.visual_offsets + own.speech_offsets).diff().tolist()
    )
    assert batch.longest >= int(batch.offsets.diff().max()) and batch.longest % 32 == 0
    assert torch.equal(batch.sample_keys, own.sample_keys) and batch.ids == own.ids
    assert torch.equal(batch.targets["label"], own.targets["label"])
    assert torch.equal(batch.targets["lexicon"], own.targets["lexicon"])
    assert torch.equal(batch.targets["soft_labels"], other.targets["soft_labels"])
    assert torch.equal(batch.targets["visual_of"], other.sample_keys) and "speech_of" not in batch.targets
    assert batch.targets["visual_of"].dtype == torch.int64


def test_each_modality_may_be_anothers(split):
    speakers = np.array([0, 0, 3, 21, 1])
    batch = split.pack(INDICES, {"visual": OWNERS, "speech": speakers})
    faces, speech = split.pack(OWNERS), split.pack(speakers)
    for sample in range(5):
        assert torch.equal(rows(batch, "visual", sample), rows(faces, "visual", sample))
        assert torch.equal(rows(batch, "speech", sample), rows(speech, "speech", sample))
    assert batch.targets["visual_of"].tolist() == split.keys[OWNERS].tolist()
    assert batch.targets["speech_of"].tolist() == split.keys[speakers].tolist()


def test_ones_own_rows_change_nothing_but_the_note(split):
    own, batch = split.pack(INDICES), split.pack(INDICES, {"visual": INDICES, "speech": INDICES})
    assert torch.equal(batch.visual, own.visual) and torch.equal(batch.speech, own.speech)
    assert torch.equal(batch.targets["visual_of"], batch.sample_keys)
    assert "visual_of" not in own.targets


def test_an_epoch_with_partners_fits_the_room_it_was_given(split):
    owners = np.roll(np.arange(len(split)), 7)
    room = split.lengths.copy()
    room[:, 1] = split.lengths[owners, 1]
    capacity = Capacity(7, 60, 22, 60)
    batches = list(epoch(split, capacity, room=room, shown={"visual": owners}))
    assert [id for batch in batches for id in batch.ids] == split.ids
    assert torch.equal(
        torch.cat([batch.targets["visual_of"] for batch in batches]), torch.from_numpy(split.keys[owners])
    )
    for batch in batches:
        assert len(batch.visual) <= 22
    whole = split.pack(owners)
    assert torch.equal(torch.cat([batch.visual for batch in batches]), whole.visual)
    larger = np.maximum(split.lengths[:, 1], room[:, 1])  # both the sample's own and its partner's fit
    start = 0
    for batch in batches:
        assert larger[start : start + batch.samples].sum() <= 22
        start += batch.samples


def test_what_is_made_of_a_modality_is_the_partners_too(make_corpus):
    split = make_corpus(streams=True).split("train").reading(["glove", "raw"])
    own, other, batch = split.pack(INDICES), split.pack(OWNERS), split.pack(INDICES, {"visual": OWNERS})
    assert torch.equal(batch.streams["raw"].values, other.streams["raw"].values)
    assert torch.equal(batch.streams["raw"].offsets, other.streams["raw"].offsets)
    assert torch.equal(batch.streams["glove"].values, own.streams["glove"].values)


def test_partners_and_streams_together_are_refused(make_corpus):
    split = make_corpus(streams=True).split("train").reading(["raw"])
    capacity = Capacity(8, 200, 200, 200, streams={"raw": 200})
    stream = Stream(split, room=lambda indices, epoch: split.lengths[indices])
    with pytest.raises(MemofastError, match="raw"):
        Loader([stream], capacity=capacity, seed=1)


def test_what_is_not_shown_has_no_rows_and_text_is_cls_alone(make_corpus):
    """As conditions show it; labels stay."""
    split = make_corpus(streams=True).split("train").reading(["glove", "raw"])
    nobody, hidden = np.full(5, -1), np.where(INDICES > 3, -1, INDICES)
    for condition, shown in (("va", {"text": nobody}), ("l", {"visual": nobody, "speech": nobody}),
                             ("a", {"text": nobody, "visual": nobody})):  # fmt: skip
        own, batch = keep(split.pack(INDICES), condition), split.pack(INDICES, shown)
        names = ["token_ids", "word_ids", "offsets", "sample_keys", *(f"{m}_offsets" for m in MODALITIES)]
        assert all(torch.equal(getattr(batch, name), getattr(own, name)) for name in names)
        for name, rows_of in own.targets.items():
            assert torch.equal(batch.targets[name], rows_of), name
        for name, stream in own.streams.items():
            assert torch.equal(batch.streams[name].offsets, stream.offsets), name
            assert torch.equal(batch.streams[name].values, stream.values), name
        for modality in ("visual", "speech"):
            rows_of = own.rows_of(modality)
            assert torch.equal(batch.rows_of(modality), batch.rows_of(modality)[:0] if rows_of is None else rows_of)
            assert modality not in shown or torch.equal(batch.targets[f"{modality}_of"], batch.sample_keys)
    batch, own = split.pack(INDICES, dict.fromkeys(MODALITIES, hidden)), split.pack(INDICES)
    for sample, place in enumerate(hidden):
        for modality in MODALITIES:
            least = int(modality == "text")
            shown_rows = rows(own, modality, sample)[: least if place < 0 else None]
            assert torch.equal(rows(batch, modality, sample), shown_rows)
    assert batch.targets["lexicon"].shape == batch.token_ids.shape and "text_of" not in batch.targets

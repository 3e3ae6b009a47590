"""Views joined: every tensor lies behind that of the views before, and a model computes what it computes of each."""

import pytest
import torch
from packed_batches import random_batch, small_config

from memofast.data import Capacity, Read, View
from memofast.data.batch import StreamRows
from memofast.data.joined import joined
from memofast.data.view import padded
from memofast.model import MemoBertForPreTraining

LENGTHS = [(3, 2, 4), (5, 0, 1), (1, 6, 3)]
CONFIG = small_config(tables={"polarity": 4}, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
RNG = torch.tensor([8, 3])


def three_views():
    """One of everything a view can have, one of a second batch with nothing, one of the first batch's samples again."""
    batch = random_batch(CONFIG, LENGTHS, lexicon=True)
    batch.streams["glove"] = StreamRows(torch.arange(32.0).reshape(4, 8), ints(0, 1, 1, 4), "text")
    batch.longest, batch.ids = 32, ["a", "b", "c"]
    other = batch.select(torch.tensor([2, 0]))
    first = View(
        batch,
        token_ids=batch.token_ids.flip(0),
        sources={"visual": ints(1, 0, -1, 3, 4, 7, 6, 2)},
        positions={"speech": ints(3, 2, 1, 0, 9, 5, 4, 6)},
        tables={"polarity": ints(*([1, -1, 3] * 3))},
        added=torch.randn(9, 32, generator=torch.Generator().manual_seed(2)),
        reads={"own": Read("words", torch.tensor([2, 17])), "shared": Read("pooled", rows(batch), torch.arange(3))},
    )
    second = View(other, draw=1, reads={"shared": Read("pooled", rows(other), torch.tensor([5, 6]))})
    third = View(batch, draw=2, reads={"shared": Read("pooled", rows(batch)[1:], torch.tensor([8, 9]))})
    return [first, second, third]


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def rows(batch):
    return batch.offsets[:-1].to(torch.int64)


def test_everything_lies_behind_that_of_the_views_before():
    views = three_views()
    first, second = views[0].batch, views[1].batch
    whole = joined(views)
    batch = whole.batch
    assert whole.draw == 0 and batch.longest == 32 and batch.ids == list("abccaabc")
    assert torch.equal(batch.sample_keys, torch.cat([view.keys for view in views]))
    assert batch.text_offsets.tolist() == [0, 3, 8, 9, 10, 13, 16, 21, 22] and batch.text_offsets.dtype == torch.int32
    assert batch.offsets.tolist() == [0, 9, 15, 25, 35, 44, 53, 59, 69]
    assert torch.equal(whole.token_ids, torch.cat((views[0].token_ids, second.token_ids, first.token_ids)))
    assert torch.equal(batch.visual, torch.cat((first.visual, second.visual, first.visual)))
    assert torch.equal(batch.targets["soft_labels"][8:16], second.targets["soft_labels"])
    assert batch.streams["glove"].values[:, 0].tolist() == [0, 8, 16, 24, 8, 16, 24, 0, 0, 8, 16, 24]
    assert batch.streams["glove"].offsets.tolist() == [0, 1, 1, 4, 7, 8, 9, 9, 12]
    assert (
        whole.sources["visual"].tolist() == [1, 0, -1, 3, 4, 7, 6, 2, *range(8, 24)] and "speech" not in whole.sources
    )
    assert whole.positions["speech"].tolist() == [3, 2, 1, 0, 9, 5, 4, 6, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 1, 2]
    assert whole.tables["polarity"].tolist() == [1, -1, 3] * 3 + [-1] * 13
    assert torch.equal(whole.added, torch.cat((views[0].added, torch.zeros(13, 32))))
    assert list(whole.reads) == ["own", "shared"] and whole.reads["own"].labels is None
    assert whole.reads["shared"].rows.tolist() == [0, 9, 15, 25, 35, 53, 59]
    assert whole.reads["shared"].labels.tolist() == [0, 1, 2, 5, 6, 8, 9] and whole.reads["shared"].count == 7


def test_a_model_computes_of_joined_views_what_it_computes_of_each():
    torch.manual_seed(0)
    model = MemoBertForPreTraining(CONFIG).train()
    model.memobert.embeddings.tables["polarity"].weight.data.normal_()
    views = three_views()
    apart = [model.memobert(view, rng=RNG).hidden for view in views]
    torch.testing.assert_close(model.memobert(joined(views), rng=RNG).hidden, torch.cat(apart), rtol=1e-5, atol=2e-6)
    assert (apart[0][:9] - apart[2][:9]).abs().max() > 0.1  # so the third's keys tell its draw


def test_rows_keep_their_type_under_autocast():
    views = three_views()
    for view in views:
        view.batch.visual = view.batch.visual.to(torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        batch = joined(views).batch
    assert (batch.visual.dtype, batch.speech.dtype) == (torch.float16, torch.float32)


def test_views_of_fixed_shape_are_not_joined():
    views = padded(three_views()[1:2] * 2, [Capacity(9, 30, 30, 30, 64, {"glove": 9})] * 2, [{"shared": 4}] * 2)
    with pytest.raises(ValueError, match="fixed shape"):
        joined(views)

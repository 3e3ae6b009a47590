"""What a view changes of a forward pass: its draw of dropout, the positions of rows, further tables of a token."""

import pytest
import torch
from packed_batches import random_batch, reading, select, small_config

from memofast.data import View
from memofast.model import MemoBertForPreTraining, MemoBertModel
from memofast.ops.philox import Place, hidden_keep_mask, keep_scale, site

RNG = torch.tensor([11, 3])


def build(kind=MemoBertModel, **overrides):
    torch.manual_seed(0)
    model = kind(small_config(**overrides))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_numbers_of_sites():
    places = ((0, Place.EMBEDDING), (2, Place.ATTENTION), (1, Place.ATTENTION_OUTPUT), (3, Place.FEED_FORWARD_OUTPUT))
    assert tuple(site(layer, place) for layer, place in places) == (0, 513, 258, 771)


@pytest.mark.parametrize("draw", [0, 1, 5])
def test_embeddings_drop_what_their_view_says(draw):
    model = build(hidden_dropout_prob=0.3).train()
    batch = random_batch(model.config)
    kept = hidden_keep_mask(RNG, 0, View(batch, draw=draw).keys, batch.offsets, batch.rows, 32, 0.3)
    got = model.embeddings(View(batch, draw=draw), RNG)
    whole = model.eval().embeddings(View(batch), None)
    torch.testing.assert_close(got, whole * kept * keep_scale(0.3))


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.3)], ids=["hidden", "attention"])
def test_two_views_of_a_sample_draw_other_dropout(rates):
    hidden, attention = rates
    model = build(MemoBertForPreTraining, hidden_dropout_prob=hidden, attention_probs_dropout_prob=attention).train()
    batch = random_batch(model.config)
    rows = torch.tensor([0, 5, 21, 40, 78])
    reads = {"words": ("words", rows)}
    outputs = [model(reading(batch, reads, draw=draw), rng=RNG)["words"] for draw in (0, 1, 2, 15)]
    for number, one in enumerate(outputs):
        for other in outputs[:number]:
            assert (one - other).abs().amax(1).min() > 1e-3  # every row of every pair
    assert torch.equal(model(reading(batch, reads), rng=RNG)["words"], outputs[0])
    evaluated = [model.eval()(reading(batch, reads, draw=draw))["words"] for draw in (0, 1)]
    assert torch.equal(*evaluated)


def test_a_draw_belongs_to_the_sample():
    model = build(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
    batch = random_batch(model.config)
    order = [4, 1, 2]
    whole = model(View(batch, draw=1), rng=RNG).pooled
    torch.testing.assert_close(
        model(View(select(batch, order), draw=1), rng=RNG).pooled, whole[order], rtol=1e-5, atol=2e-6
    )


def test_rows_left_out_keep_the_positions_that_a_view_says():
    """A sample without its third to fifth face, whose others say where they stood, has their rows of the whole one."""
    model = build().eval()
    batch = random_batch(model.config, [(5, 9, 4)])
    kept = torch.tensor([0, 1, 5, 6, 7, 8])
    shorter = random_batch(model.config, [(5, 6, 4)])
    shorter.token_ids, shorter.speech, shorter.sample_keys = batch.token_ids, batch.speech, batch.sample_keys
    shorter.visual = batch.visual[kept]
    view = View(shorter, positions={"visual": kept.to(torch.int32)})
    embedded, whole = model.embeddings(view, None), model.embeddings(View(batch), None)
    rows = torch.cat((torch.arange(5), 5 + kept, torch.arange(14, 18)))
    torch.testing.assert_close(embedded, whole[rows])
    assert not torch.allclose(model.embeddings(View(shorter), None)[7:11], embedded[7:11])
    hidden = model(view).hidden
    torch.testing.assert_close(hidden, model.encoder(whole[rows], View(shorter), None))


@pytest.mark.parametrize("modality", ["text", "visual", "speech"])
def test_own_positions_written_out_change_nothing(modality):
    model = build(hidden_dropout_prob=0.1).train()
    batch = random_batch(model.config)
    own = torch.cat([torch.arange(n) for n in batch.offsets_of(modality).diff().tolist()]).to(torch.int32)
    expected = model(batch, rng=RNG).hidden
    torch.testing.assert_close(
        model(View(batch, positions={modality: own}), rng=RNG).hidden, expected, rtol=1e-6, atol=1e-6
    )
    turned = model(View(batch, positions={modality: own.flip(0)}), rng=RNG).hidden
    assert not torch.allclose(turned, expected, atol=1e-2)


def test_what_is_added_joins_the_word_before_the_norm_and_learns():
    model = build().eval()
    batch = random_batch(model.config)
    added = torch.randn(len(batch.token_ids), 32, requires_grad=True)
    own = model.embeddings
    position = torch.cat([torch.arange(n) for n in batch.text_offsets.diff().tolist()])
    expected = own.norm(
        own.word.weight[batch.token_ids.long()] + own.position.weight[position] + own.types.weight[0] + added
    )
    text = batch.joint_rows("text", torch.arange(len(batch.token_ids), dtype=torch.int32))
    got = own(View(batch, added=added), None)
    torch.testing.assert_close(got[text], expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(got.shape)
    (mine,) = torch.autograd.grad((got * weight).sum(), added)
    (theirs,) = torch.autograd.grad((expected * weight[text]).sum(), added)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(View(batch, added=added)).pooled, model(batch).pooled, atol=1e-2)


def test_token_ids_of_a_view_go_before_those_of_its_batch():
    model = build().eval()
    batch = random_batch(model.config)
    view = View(batch, token_ids=batch.token_ids.flip(0))
    changed = batch.map(lambda tensor: tensor)
    changed.token_ids = batch.token_ids.flip(0)
    torch.testing.assert_close(model(view).hidden, model(changed).hidden, rtol=0, atol=0)
    assert not torch.allclose(model(view).hidden, model(batch).hidden)

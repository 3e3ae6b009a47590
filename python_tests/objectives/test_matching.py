"""Matching: whose rows a sample shows, what is asked, the loss and the guess beside it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packed_batches import random_batch, reading, small_config

from memofast import objectives
from memofast.data import Facts
from memofast.errors import MemofastError
from memofast.objectives import Statistics
from memofast.ops.philox import Purpose

CONFIG = small_config()
RNG = torch.tensor([5, 17])


def built(name="matching", **options):
    return objectives.build({name: {"kind": "matching", **options}})[name]


def always(**options):
    """Every sample shows another's rows, which no recipe may ask for."""
    objective = built(**options)
    objective.options = objective.options.model_copy(update={"negatives": (1, 1)})
    return objective


def split_of(lengths, seed=0):
    keys = np.random.default_rng(seed).integers(-(2**62), 2**62, len(lengths))
    facts = Facts(np.asarray(lengths, np.int32), frozenset(), lambda: None)
    corpus = SimpleNamespace(path="corpora/c")
    return SimpleNamespace(name="train", corpus=corpus, keys=keys, facts=facts, lengths=facts.lengths)


def partners(split, indices, objective=None, pool=None, seed=1, epoch=0, purpose=Purpose.PARTNER):
    pool = np.arange(len(split.keys)) if pool is None else pool
    return (objective or built()).places(split, pool, np.asarray(indices), seed, epoch, purpose)["visual"]


WHOLE = split_of([(5, 3, 4)] * 4000)


@pytest.mark.parametrize("negatives", ["1/2", "1/10", 0.75])
def test_the_share_of_negatives(negatives):
    objective, everyone = built(negatives=negatives), np.arange(4000)
    owners = partners(WHOLE, everyone, objective)
    share = objective.options.negatives[0] / objective.options.negatives[1]
    changed = int((owners != everyone).sum())
    assert abs(changed - 4000 * share) <= 5 * (4000 * share * (1 - share)) ** 0.5
    upper = int((owners[owners != everyone] >= 2000).sum())  # whether a partner is drawn says nothing of which
    assert abs(upper - changed / 2) <= 5 * (changed / 4) ** 0.5


def test_partners_are_drawn_evenly_among_the_others_and_never_oneself():
    """Of seven samples every one shows each other one as often, over many epochs."""
    split, objective, counts = split_of([(5, 3, 4)] * 7), always(), np.zeros((7, 7), int)
    for epoch in range(1200):
        counts[np.arange(7), partners(split, np.arange(7), objective, epoch=epoch)] += 1
    assert not counts.diagonal().any()
    others = counts[~np.eye(7, dtype=bool)]
    assert np.abs(others - 200).max() <= 5 * (1200 * 5 / 36) ** 0.5


def test_a_partner_has_what_is_replaced_and_takes_part():
    lengths = [(5, 3, 4), (5, 0, 4), (5, 3, 0), (2, 3, 4), (3, 1, 1), (9, 9, 9), (5, 4, 3)]
    split, pool = split_of(lengths), np.array([0, 1, 2, 3, 4, 6])  # the sixth does not take part
    epochs = [partners(split, np.arange(7), always(), pool, epoch=epoch) for epoch in range(60)]
    found = [set(owners.tolist()) for owners in np.stack(epochs, 1)]
    assert found == [{4, 6}, {0, 4, 6}, {0, 4, 6}, {0, 4, 6}, {0, 6}, {0, 4, 6}, {0, 4}]
    faces = always(replaced=["visual"])
    epochs = [partners(split, np.arange(7), faces, pool, epoch=epoch) for epoch in range(60)]
    assert set(np.stack(epochs)[:, 0].tolist()) == {2, 4, 6}
    assert list(faces.places(split, pool, np.arange(3), 1, 0, Purpose.PARTNER)) == ["visual"]
    both = built().places(split, pool, np.arange(3), 1, 0, Purpose.PARTNER)
    assert list(both) == ["visual", "speech"] and np.array_equal(both["visual"], both["speech"])


def test_partners_are_those_of_seed_purpose_epoch_and_sample():
    """Any batch in any order; other in the next epoch."""
    whole = partners(WHOLE, np.arange(4000))
    some = np.random.default_rng(1).permutation(4000)[:333]
    np.testing.assert_array_equal(partners(WHOLE, some), whole[some])
    np.testing.assert_array_equal(partners(WHOLE, some[7:8]), whole[some[7:8]])
    changed = [
        partners(WHOLE, np.arange(4000), epoch=1),
        partners(WHOLE, np.arange(4000), seed=2),
        partners(WHOLE, np.arange(4000), purpose=Purpose.VALIDATION_PARTNER),
        partners(WHOLE, np.arange(4000), built("other")),
    ]
    for number, one in enumerate(changed):
        for other in [whole, *changed[:number]]:
            same = (one == other).sum()  # both show their own rows in a quarter of the cases
            assert abs(same - 1000) <= 5 * (4000 * 3 / 16) ** 0.5


def test_one_sample_alone_has_no_partner():
    with pytest.raises(
        MemofastError, match="split train of corpus corpora/c has 1 samples with words and visual and speech rows"
    ):
        partners(split_of([(5, 3, 4), (5, 0, 4), (1, 3, 4)]), [0])


def test_samples_of_a_stream_show_whose_rows_the_objectives_say():
    two = objectives.build({"whole_word_mlm": {}}) | {"matching": always(replaced=["speech"])}
    indices = np.array([9, 4, 40, 3, 0])
    mine = torch.tensor([True, False, True, False, False])
    chosen = {"whole_word_mlm": ~mine, "matching": mine}
    shown = objectives.places_of(chosen, two, WHOLE, np.arange(4000), indices, 1, 3)
    own = two["matching"].places(WHOLE, np.arange(4000), indices, 1, 3, Purpose.PARTNER)["speech"]
    assert list(shown) == ["speech"] and shown["speech"].tolist() == [own[0], 4, own[2], 3, 0]
    assert objectives.places_of({"whole_word_mlm": ~mine}, two, WHOLE, np.arange(4000), indices, 1, 3) is None
    split = split_of([(5, 3, 4), (4, 1, 9), (3, 8, 2)])
    rows = objectives.rows_shown(split, {"speech": np.array([1, 0]), "visual": np.array([2, 2])}, np.array([2, 0]))
    assert rows.tolist() == [[3, 8, 9], [5, 8, 4]] and split.lengths[2].tolist() == [3, 8, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "negatives: must be above 0 and below 1"),
        ({"negatives": [3, 3]}, "negatives: must be above 0 and below 1"),
        ({"replaced": ["speech", "visual", "speech"]}, "replaced: names a modality twice"),
    ],
)
def test_nothing_to_tell_apart_is_refused(options, message):
    with pytest.raises(MemofastError, match=message):
        built(**options)


def test_labels_say_whether_rows_are_the_samples_own():
    objective, batch = built(), random_batch(CONFIG, [(5, 3, 4), (3, 2, 1), (2, 4, 4), (6, 1, 2)])
    owners = batch.sample_keys.clone()
    owners[[1, 2]] = torch.tensor([8, 9])
    batch.targets["visual_of"] = owners
    (view,) = objectives.views_for(batch, objective, RNG)
    read = view.reads["matching"]
    assert read.head == "matching" and read.labels.tolist() == [1, 0, 1]  # the third has no words
    assert read.rows.tolist() == [int(batch.offsets[sample]) for sample in (0, 1, 3)]
    assert view.batch is batch and view.token_ids is None and not view.sources
    batch.targets["speech_of"] = batch.targets.pop("visual_of")
    speech = built(replaced=["speech"])
    assert objectives.views_for(batch, speech, RNG)[0].reads["matching"].labels.tolist() == [1, 0, 1]
    with pytest.raises(MemofastError, match="objective matching: the batch was packed without partners"):
        objectives.views_for(batch, objective, RNG)


def test_a_batch_without_its_samples_needs_no_partners():
    for lengths in ([(5, 0, 0), (9, 0, 0)], [(2, 3, 4)]):
        batch = random_batch(CONFIG, lengths)
        assert built().can_be_of(batch) == (lengths == [(2, 3, 4)])
        assert objectives.views_for(batch, built(), RNG)[0].counts == {"matching": 0}


def test_the_loss_by_hand():
    batch = random_batch(CONFIG, [(5, 3, 4), (3, 2, 1), (6, 1, 2)])
    view = reading(batch, {"matching": ("matching", torch.tensor([0, 12, 18]))})
    view.reads["matching"].labels = torch.tensor([1, 0, 0])
    logits = torch.tensor([[0.5, 2.0], [1.0, -0.25], [-3.0, 1.0]])
    expected = math.log1p(math.exp(0.5 - 2)) + math.log1p(math.exp(-0.25 - 1)) + math.log1p(math.exp(1 + 3))
    loss = built().loss([logits], [view])
    assert float(loss.total) == pytest.approx(expected, rel=1e-6) and loss.count == 3
    assert float(loss.metrics["accuracy"]) == 2


@pytest.mark.parametrize(("negatives", "share"), [("1/2", 0.5), ("1/10", 0.1), (0.75, 0.75)])
def test_the_trivial_predictor_knows_the_share_of_matches(negatives, share):
    """Over a run of samples its loss is the entropy of that share."""
    objective = built(negatives=negatives)
    owners = partners(WHOLE, np.arange(4000), objective)
    batch = random_batch(CONFIG, [(3, 1, 1)] * 4000)
    view = reading(batch, {"matching": ("matching", batch.offsets[:-1].long())})
    view.reads["matching"].labels = torch.from_numpy(owners == np.arange(4000)).long()
    loss = objective.trivial(Statistics(9, {}), [view])
    matches = int(view.reads["matching"].labels.sum())
    by_hand = -matches * math.log(1 - share) - (4000 - matches) * math.log(share)
    assert float(loss.total) == pytest.approx(by_hand, rel=1e-5) and loss.count == 4000
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert float(loss.total) / 4000 == pytest.approx(entropy, abs=0.06)

"""Prompts as a second sentence: what is shown and drawn, what is true of it, the loss and the guess; pseudo labels."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packed_batches import random_batch, select, small_config

from memofast import objectives
from memofast.data import Capacity, Facts
from memofast.data.view import padded
from memofast.errors import MemofastError
from memofast.objectives import Statistics
from memofast.ops.philox import Purpose

RNG = torch.tensor([5, 17])
TEMPLATE, WORDS = [110, 103, 111, 112], {"anger": 140, "happy": 131, "sad": 152}
PIECES = [140, 131, 152]
LENGTHS = [(5, 2, 3), (3, 0, 1), (1, 4, 2), (6, 1, 0), (4, 2, 2)]
LABELS = torch.tensor([2, 0, 1, -1, 2])
CONFIG = SimpleNamespace(vocab_size=2000, mask_token_id=103, max_position_embeddings=64)
# of samples; nothing is known of the first, and the last's likeliest is the first of two
EMOTIONS = torch.tensor([[0, 0, 0], [0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.4, 0.2, 0.4]])


def built(kind="sentence_prompt", config=CONFIG, **options):
    return objectives.build({"mine": {"kind": kind, "template": TEMPLATE, "words": WORDS} | options}, config)["mine"]


def batch_of(labels=LABELS, lengths=LENGTHS):
    batch = random_batch(small_config(), lengths, lexicon=True)
    batch.targets["label"] = labels
    return batch


def texts(batch, values=None):
    return [
        (batch.token_ids if values is None else values)[a:b].tolist() for a, b in pairwise(batch.text_offsets.tolist())
    ]


def said(view, number):
    """The class that each second sentence of these samples names, from the pieces shown."""
    own = texts(view.batch, view.token_ids)
    return [next(PIECES.index(piece) for piece in own[sample] if piece in PIECES) for sample in number]


@pytest.mark.parametrize("position", ["after", "before"])
def test_the_sentence_stands_apart_from_the_text(position):
    batch = batch_of()
    (view,) = objectives.views_for(batch, built(position=position), RNG)
    classes, read = said(view, (0, 1, 2, 4)), view.reads["mine"]
    sentence = [[110, PIECES[number], 111, 112] for number in classes]
    own, expected = texts(batch), []
    for text, prompt in zip([own[0], own[1], own[4]], [sentence[0], sentence[1], sentence[3]], strict=True):
        after = [*text[:-1], 1012, 102, *prompt, 102]
        expected.append(after if position == "after" else [101, *prompt, 102, *text[1:]])
    shown = texts(view.batch, view.token_ids)
    assert [shown[0], shown[1], shown[4]] == expected
    assert shown[2] == [101, *sentence[2], 102] and shown[3] == own[3]  # of [CLS] alone, and of no known class
    assert read.head == "matching" and read.rows.tolist() == view.batch.offsets[:-1][[0, 1, 2, 4]].tolist()
    assert read.labels.tolist() == [int(one == label) for one, label in zip(classes, [2, 0, 1, 2], strict=True)]
    lexicon, before = texts(batch, view.batch.targets["lexicon"]), texts(batch, batch.targets["lexicon"])
    lexicon = texts(view.batch, view.batch.targets["lexicon"])
    added = [-1] * 4
    after = [*before[0][:-1], -1, -1, *added, -1]
    assert lexicon[0] == (after if position == "after" else [before[0][0], *added, -1, *before[0][1:-1], -1])
    assert lexicon[3] == before[3]


def test_a_text_that_holds_a_mask_itself_keeps_it():
    batch = batch_of()
    batch.token_ids[1] = 103
    (view,) = objectives.views_for(batch, built(), RNG)
    shown = texts(view.batch, view.token_ids)[0]
    assert shown[1] == 103 and shown.count(103) == 1 and view.reads["mine"].count == 4


def drawn(objective, batch, rng=RNG, purpose=Purpose.MASK):
    (view,) = objectives.views_for(batch, objective, rng, purpose)
    return np.array(said(view, range(batch.samples)))


@pytest.mark.parametrize(("options", "share"), [({}, 2 / 3), ({"negatives": "1/4"}, 1 / 4), ({"negatives": 0.9}, 0.9)])
def test_the_share_of_other_classes_and_which(options, share):
    batch = batch_of(torch.arange(3000) % 3, [(3, 0, 0)] * 3000)
    classes, true = drawn(built(**options), batch), np.arange(3000) % 3
    wrong = classes != true
    assert abs(wrong.sum() - 3000 * share) <= 5 * (3000 * share * (1 - share)) ** 0.5
    for label in range(3):  # each of the two others as often
        further = ((classes - true) % 3)[wrong & (true == label)]
        assert abs((further == 1).sum() - len(further) / 2) <= 5 * (len(further) / 4) ** 0.5


def test_what_is_drawn_is_of_seed_update_purpose_and_sample():
    batch = batch_of(torch.arange(300) % 3, [(3, 0, 0)] * 300)
    whole, some = drawn(built(), batch), [7, 2, 299, 150]
    assert drawn(built(), select(batch, some)).tolist() == whole[some].tolist()
    others = [drawn(built(), batch, torch.tensor([5, 18])), drawn(built(), batch, torch.tensor([6, 17]))]
    others += [drawn(built(), batch, purpose=Purpose.VALIDATION_MASK)]
    for other in others:  # alike by chance in a third
        assert abs((other == whole).sum() - 100) <= 5 * (300 * 2 / 9) ** 0.5


def test_other_objectives_share_the_view():
    batch = batch_of()
    options = {"words": {"kind": "whole_word_mlm", "probability": 1}}
    both = objectives.build(options, CONFIG) | {"mine": built()}
    chosen = {"words": torch.tensor([False, False, False, True, False]), "mine": LABELS == 2}
    (view,) = objectives.views_of(batch, both, chosen, RNG)
    (turned,) = objectives.views_of(batch, dict(reversed(both.items())), dict(reversed(chosen.items())), RNG)
    assert torch.equal(view.token_ids, turned.token_ids)
    (alone,) = objectives.views_of(batch, {"words": both["words"]}, {"words": chosen["words"]}, RNG)
    assert texts(view.batch, view.token_ids)[3] == texts(batch, alone.token_ids)[3]
    assert said(view, [0, 4]) == said(objectives.views_for(batch, built(), RNG)[0], [0, 4])
    assert view.counts == {"words": 4, "mine": 2}


def test_there_is_room_for_a_sentence_in_every_sample():
    batch, objective = batch_of(torch.tensor([0, 1, 2, 2, 0])), built()
    views = objectives.views_for(batch, objective, RNG)
    (wide,), (room,) = objectives.padding_of(views, {"mine": objective}, Capacity(5, 19, 9, 8, longest=32))
    assert (wide.text, wide.longest) == (19 + 5 * 7, 64) and room == {"mine": 5}
    (placed,) = padded(views, [wide], [room])
    assert texts(placed.batch, placed.token_ids)[:5] == texts(views[0].batch, views[0].token_ids)
    tight = SimpleNamespace(vocab_size=2000, mask_token_id=103, max_position_embeddings=12)
    assert built(config=tight).eligible(Facts.of_batch(batch)).tolist() == [True, True, True, False, True]


def test_the_loss_and_the_guess_by_hand():
    views = objectives.views_for(batch_of(), built(), RNG)
    views[0].reads["mine"].labels = torch.tensor([1, 0, 0, 0])
    scores = torch.tensor([[0.5, 1.0], [2.0, -1.0], [0.0, 0.25], [3.0, 1.0]])
    loss = built().loss([scores], views)
    expected = -sum(float(F.log_softmax(row, -1)[label]) for row, label in zip(scores, [1, 0, 0, 0], strict=True))
    assert float(loss.total) == pytest.approx(expected, rel=1e-5) and loss.count == 4
    assert float(loss.metrics["accuracy"]) == 3
    guess = built().trivial(Statistics(9, {}), views)
    assert float(guess.total) == pytest.approx(-math.log(1 / 3) - 3 * math.log(2 / 3), rel=1e-5)
    guess = built(negatives="1/4").trivial(Statistics(9, {}), views)
    assert float(guess.total) == pytest.approx(-math.log(3 / 4) - 3 * math.log(1 / 4), rel=1e-5)


@pytest.mark.parametrize("kind", ["sentence_prompt", "label_prompt"])
def test_pseudo_labels_name_the_class(kind):
    batch, objective = batch_of(), built(kind, labels="emotions", words=WORDS | {"sad": None})
    batch.targets["emotions"] = EMOTIONS
    assert objective.eligible(Facts.of_batch(batch)).tolist() == [False, True, True, False, True]
    (view,) = objectives.views_for(batch, objective, RNG)
    if kind == "label_prompt":
        assert view.reads["mine"].labels.tolist() == [1, 0, 0]
    else:
        named = said(view, [1, 2, 4])
        assert view.reads["mine"].labels.tolist() == [
            int(one == own) for one, own in zip(named, [1, 0, 0], strict=True)
        ]
    statistics = Statistics(200, {})
    statistics.add(batch)
    if kind == "label_prompt":  # two of the first class, one of the second
        guess = objective.trivial(statistics, [view])
        assert float(guess.total) == pytest.approx(-2 * math.log(2 / 3) - math.log(1 / 3), rel=1e-5)
    del batch.targets["emotions"]
    assert not objective.can_be_of(batch) and objective.needs == ("emotions",)
    assert not objective.eligible(Facts.of_batch(batch)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 1}, "negatives: must be above 0 and below 1"),
        ({"negatives": 0}, "negatives: must be above 0 and below 1"),
        ({"labels": "soft_labels"}, "labels: input should be 'label' or 'emotions'"),
        ({"restricted": True}, "restricted"),
        ({"words": {"anger": 5}}, "words: names fewer than two classes"),
        ({"template": [5, 6]}, r"template: holds 0 \[MASK\]"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(MemofastError, match=message) as error:
        built(**options)
    assert "\n" not in str(error.value)
    with pytest.raises(MemofastError, match="labels: no corpus has emotions; run memofast pseudo-label"):
        objectives.build({"sentence_prompt": {"labels": "emotions"}}, CONFIG, {"label": ("a", "b")})

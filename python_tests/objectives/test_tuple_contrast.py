"""Contrast with swapped modalities: whose rows a swapped view shows, and the loss beside its own second view."""

import math

import pytest
import torch
from packed_batches import random_batch, select, small_config

from memofast import objectives
from memofast.data import Capacity, Facts, Read, View
from memofast.data.batch import StreamRows
from memofast.data.modality import MODALITIES
from memofast.data.view import padded
from memofast.errors import MemofastError
from memofast.objectives import Statistics
from memofast.ops.philox import Purpose

CONFIG = small_config()
RNG = torch.tensor([5, 17])


def built(**options):
    return objectives.build({"tuple_contrast": options})["tuple_contrast"]


def lengths(count):
    """All different in every modality, so that the rows of a sample tell whose they are."""
    return [(3 + n, 1 + (7 * n) % 23, 1 + (5 * n) % 23) for n in range(count)]


def swaps(batch, rng=RNG, purpose=Purpose.MASK, selected=None, **options):
    """By sample the modality that is swapped and the sample that gives it, from the lengths."""
    selected = torch.ones(batch.samples, dtype=torch.bool) if selected is None else selected
    third = built(**options).views(View(batch), selected, rng, purpose)[1].batch
    given = {m: batch.offsets_of(m).diff().tolist() for m in MODALITIES}
    found = {}
    for row, key in enumerate(third.sample_keys.tolist()):
        sample = batch.sample_keys.tolist().index(key)
        shown = {m: given[m].index(int(third.offsets_of(m).diff()[row])) for m in MODALITIES}
        ((modality, giver),) = [(m, other) for m, other in shown.items() if other != sample]
        found[sample] = modality, giver
    return found


def test_every_sample_swaps_one_modality_with_another_that_swaps_it():
    batch = random_batch(CONFIG, lengths(20))
    found = swaps(batch)
    assert len(found) >= 18
    for modality in MODALITIES:
        members = {sample: giver for sample, (own, giver) in found.items() if own == modality}
        assert len(members) != 1 and sorted(members) == sorted(members.values())
    third = built().views(View(batch), torch.ones(20, dtype=torch.bool), RNG, Purpose.MASK)[1].batch
    assert len(third.token_ids) <= len(batch.token_ids) and len(third.speech) <= len(batch.speech)


def test_the_rows_of_a_swapped_view_are_those_of_the_samples_named():
    batch = random_batch(CONFIG, lengths(9), lexicon=True)
    glove = torch.arange(48.0).reshape(6, 8)
    batch.streams["glove"] = StreamRows(glove, torch.tensor([0, 0, 3, 3, 4, 4, 4, 4, 5, 6], dtype=torch.int32), "text")
    whose = {"text": torch.tensor([3, 8, 1]), "speech": torch.tensor([7, 2, 2])}
    found = batch.select(torch.tensor([2, 8, 3]), whose)
    text, faces, speech = (select(batch, which) for which in ([3, 8, 1], [2, 8, 3], [7, 2, 2]))
    assert torch.equal(found.token_ids, text.token_ids) and torch.equal(found.word_ids, text.word_ids)
    assert torch.equal(found.targets["lexicon"], text.targets["lexicon"])
    assert torch.equal(found.visual, faces.visual) and torch.equal(found.speech, speech.speech)
    assert torch.equal(found.targets["soft_labels"], faces.targets["soft_labels"])
    assert torch.equal(found.sample_keys, faces.sample_keys)
    joint = [text.text_offsets, faces.visual_offsets, speech.speech_offsets]
    assert torch.equal(found.offsets, sum(joint))
    assert torch.equal(found.streams["glove"].values, glove[[3, 5, 0, 1, 2]])
    assert found.streams["glove"].offsets.tolist() == [0, 1, 2, 5]
    batch.longest = 32
    assert batch.select(torch.tensor([0, 1])).longest == 32
    assert batch.select(torch.tensor([0]), {"text": torch.tensor([8]), "visual": torch.tensor([3])}).longest == 64


@pytest.mark.parametrize("shares", [{}, {"text": 3, "visual": 1, "speech": 0}])
def test_modalities_are_swapped_by_their_shares(shares):
    batch, objective = random_batch(CONFIG, [(5, 3, 4)] * 4000), built(swapped=shares)
    modality, _ = objective._drawn(batch, torch.arange(4000), RNG, Purpose.MASK)
    wanted = [shares.get(name, 1) for name in MODALITIES]
    for number, share in enumerate(wanted):
        expected = share / sum(wanted)
        count = int((modality == number).sum())
        assert abs(count - 4000 * expected) <= 4 * (4000 * expected * (1 - expected)) ** 0.5
    partly = random_batch(CONFIG, [(5, 3, 0), (2, 3, 4), (5, 0, 4)] * 50)  # the second has no words
    modality, _ = objective._drawn(partly, torch.arange(150), RNG, Purpose.MASK)
    for sample, lacking in enumerate((2, 0, 1)):
        assert lacking not in modality[sample::3].tolist()


def test_swaps_are_drawn_anew_in_each_update_and_for_validation():
    batch = random_batch(CONFIG, lengths(20))
    whole = swaps(batch)
    assert swaps(batch) == whole
    for changed in (swaps(batch, torch.tensor([5, 18])), swaps(batch, purpose=Purpose.VALIDATION_MASK)):
        assert sum(whole.get(sample) != one for sample, one in changed.items()) > 10
    chosen = torch.arange(20) % 2 == 1
    assert all(sample % 2 == giver % 2 == 1 for sample, (_, giver) in swaps(batch, selected=chosen).items())


def test_who_is_alone_with_its_modality_has_no_swapped_view():
    batch = random_batch(CONFIG, [(5, 3, 0), (4, 0, 2), (6, 2, 0), (9, 1, 0)])
    shares = {"text": 0}
    first, second, third = objectives.views_for(batch, built(swapped=shares), RNG)
    assert [view.batch.samples for view in (first, second, third)] == [4, 4, 3]
    assert third.reads["tuple_contrast"].labels.tolist() == [0, 2, 3] and third.draw == 2
    assert third.reads["tuple_contrast"].rows.tolist() == third.batch.offsets[:-1].tolist()
    (one,) = [objectives.views_for(select(batch, [1]), built(), RNG)]
    assert [view.batch.samples for view in one] == [1, 1, 0]


def test_samples_of_two_modalities_are_served():
    batch = random_batch(CONFIG, [(5, 0, 0), (2, 3, 0), (2, 3, 4), (3, 0, 1), (1, 1, 1), (4, 2, 0)])
    assert built().eligible(Facts.of_batch(batch)).tolist() == [False, False, True, True, True, True]
    speech = built(swapped={"text": 0, "visual": 0})
    assert speech.eligible(Facts.of_batch(batch)).tolist() == [False, False, True, True, True, False]
    assert built().couples and built().by_dropout and not built().partners
    with pytest.raises(MemofastError, match="swapped: swaps nothing"):
        built(swapped={"text": 0, "visual": 0, "speech": 0})


ONE = torch.tensor([[3.0, 4.0], [0.0, -2.0], [1.0, 0.0]])
TWO = torch.tensor([[0.0, 0.5], [0.6, -0.8], [4.0, 3.0]])
SWAPPED = torch.tensor([[0.0, -5.0], [0.6, 0.8]])  # of the third sample, and of the first
COSINES = [[0.8, -0.28, 0.96, 1.0], [-1.0, 0.8, -0.6], [0.0, 0.6, 0.8, 0.0]]


def three_views(weights=None):
    batch, rows = random_batch(CONFIG, [(2, 0, 0)] * 4), torch.arange(3)
    reads = [Read("pooled", rows, rows, weights), Read("pooled", rows, rows, weights)]
    reads.append(Read("pooled", rows[:2], torch.tensor([2, 0])))
    return [View(batch, reads={"tuple_contrast": read}, draw=number) for number, read in enumerate(reads)]


def by_hand(scale):
    sums = [sum(math.exp(scale * cosine) for cosine in row) for row in COSINES]
    return sum(math.log(whole) - scale * row[n] for n, (whole, row) in enumerate(zip(sums, COSINES, strict=True)))


def test_the_loss_by_hand_and_at_a_fixed_capacity():
    objective = built(temperature=0.5)
    module = objective.module()
    leaves = [rows.clone().requires_grad_() for rows in (ONE, TWO, SWAPPED)]
    exact = objective.loss(leaves, three_views(), module)
    assert float(exact.total.detach()) == pytest.approx(by_hand(2), rel=1e-5) and exact.count == 3
    assert {name: float(value) for name, value in exact.metrics.items()} == {"accuracy": 2, "swapped": 2}
    gradients = torch.autograd.grad(exact.total, leaves)
    assert all(gradient.any() for gradient in gradients)
    views = padded(three_views(), [Capacity(5, 20, 5, 5)] * 3, [{"tuple_contrast": 5}] * 3)
    filled = [torch.nn.functional.pad(rows.detach(), (0, 0, 0, 5 - len(rows)), value=0.7).requires_grad_()
              for rows in leaves]  # fmt: skip
    loss = objective.loss(filled, views, module)
    torch.testing.assert_close(loss.total, exact.total)
    assert loss.metrics == exact.metrics
    for ours, theirs in zip(torch.autograd.grad(loss.total, filled), gradients, strict=True):
        torch.testing.assert_close(ours[: len(theirs)], theirs)
        assert not ours[len(theirs) :].any()


def test_the_trivial_predictor_guesses_one_of_the_others_and_the_swapped():
    objective, views = built(), three_views()
    trivial = objective.trivial(Statistics(9, {}), views)
    same = objective.loss([torch.ones(3, 2), torch.ones(3, 2), torch.ones(2, 2)], views, objective.module())
    assert float(trivial.total) == pytest.approx(2 * math.log(4) + math.log(3))
    assert float(same.total.detach()) == pytest.approx(float(trivial.total))
    assert float(trivial.metrics["accuracy"]) == pytest.approx(1 / 3 + 2 / 4) and trivial.metrics["swapped"] == 2


def test_a_swapped_view_fits_where_the_batch_fits():
    objective, capacity = built(), Capacity(20, 300, 300, 300, longest=64)
    rooms = objective.room(capacity)
    assert [room.reads for room in rooms] == [20] * 3 and [room.capacity.longest for room in rooms] == [64, 64, 128]
    assert rooms[2].capacity.text == 300

"""Contrast: two views of each sample, and the cross-entropy of finding one among all of a micro-batch."""

import math

import pytest
import torch
from packed_batches import random_batch, select, small_config

from memofast import objectives
from memofast.data import Capacity, Read, View
from memofast.data.view import padded
from memofast.errors import MemofastError
from memofast.objectives import Statistics

CONFIG = small_config()
RNG = torch.tensor([5, 17])
LENGTHS = [(3, 4, 0), (1, 0, 0), (2, 0, 5), (1, 1, 0), (6, 2, 3)]  # the second is [CLS] alone


def built(**options):
    return objectives.build({"view_contrast": options})["view_contrast"]


def pair_of(count, weights=None):
    batch = random_batch(CONFIG, [(2, 0, 0)] * 4)
    rows = torch.arange(count)
    first = View(batch, reads={"view_contrast": Read("pooled", rows, rows, weights, count)})
    return [first, View(batch, reads={"view_contrast": Read("pooled", rows, rows, weights, count)}, draw=1)]


ONE = torch.tensor([[3.0, 4.0], [0.0, -2.0], [1.0, 0.0]])
TWO = torch.tensor([[0.0, 0.5], [0.6, -0.8], [4.0, 3.0]])
COSINES = [[0.8, -0.28, 0.96], [-1.0, 0.8, -0.6], [0.0, 0.6, 0.8]]


def by_hand(scale):
    logs = [[math.exp(cosine * scale) for cosine in row] for row in COSINES]
    return sum(math.log(sum(row)) - math.log(row[number]) for number, row in enumerate(logs))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0])
def test_the_loss_by_hand(temperature):
    objective = built(temperature=temperature)
    module = objective.module()
    loss = objective.loss([ONE, TWO], pair_of(3), module)
    assert float(loss.total.detach()) == pytest.approx(by_hand(1 / temperature), rel=1e-5) and loss.count == 3
    assert float(loss.metrics["accuracy"]) == 2  # the first sample is nearer to the third's view
    loss.total.backward()
    step = 1e-4
    slope = (by_hand(math.exp(step) / temperature) - by_hand(math.exp(-step) / temperature)) / (2 * step)
    assert float(module.log_scale.grad) == pytest.approx(slope, rel=1e-3)


def test_cosines_are_never_multiplied_by_more_than_a_hundred():
    objective = built()
    module = objective.module()
    assert float(module.log_scale.detach().exp()) == pytest.approx(20)
    with torch.no_grad():
        module.log_scale.fill_(7.0)
    loss = objective.loss([ONE, TWO], pair_of(3), module)
    assert float(loss.total.detach()) == pytest.approx(by_hand(100), rel=1e-5)
    with pytest.raises(MemofastError, match=r"temperature: input should be greater than 0\.01"):
        built(temperature=0.01)


def test_cosines_are_exact_under_autocast():
    """Rounded to bf16 they would be off by 0.4 %, twenty times over before the exponential."""
    generator = torch.Generator().manual_seed(1)
    one, two = (torch.randn(3, 32, generator=generator) + 1.5 for _ in range(2))
    objective, module = built(), built().module()
    exact = objective.loss([one, two], pair_of(3), module)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective.loss([one, two], pair_of(3), module)
    assert rounded.total.dtype == torch.float32
    torch.testing.assert_close(rounded.total, exact.total, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("spare", [1, 4])
def test_what_fills_a_fixed_capacity_changes_nothing(spare):
    objective, module = built(), built().module()
    leaves = [ONE.clone().requires_grad_(), TWO.clone().requires_grad_()]
    exact = objective.loss(leaves, pair_of(3), module)
    gradients = torch.autograd.grad(exact.total, [*leaves, module.log_scale])
    capacity = Capacity(3 + spare, 9, 5, 5)
    views = padded(pair_of(3), [capacity] * 2, [{"view_contrast": 3 + spare}] * 2)
    filled = [torch.cat((rows.detach(), torch.full((spare, 2), 0.7))).requires_grad_() for rows in leaves]
    loss = objective.loss(filled, views, module)
    torch.testing.assert_close(loss.total, exact.total)
    assert loss.count == 3 and loss.metrics == exact.metrics
    ours = torch.autograd.grad(loss.total, [*filled, module.log_scale])
    for mine, theirs in zip(ours, gradients, strict=True):
        torch.testing.assert_close(mine[:3] if mine.dim() else mine, theirs)
        assert not mine.dim() or not mine[3:].any()


def test_nothing_read_is_a_loss_of_zero_in_either_form():
    objective, module = built(), built().module()
    exact = objective.loss([ONE[:0].requires_grad_(), TWO[:0]], pair_of(0), module)
    views = padded(pair_of(0), [Capacity(5, 9, 5, 5)] * 2, [{"view_contrast": 2}] * 2)
    filled = objective.loss([ONE[:2].clone().requires_grad_(), TWO[:2]], views, module)
    for loss in (exact, filled):
        assert float(loss.total.detach()) == 0 and loss.count == 0 and float(loss.metrics["accuracy"]) == 0
        module.log_scale.grad = None
        loss.total.backward()
        assert float(module.log_scale.grad) == 0


def test_the_second_view_is_one_of_the_samples_chosen():
    batch = random_batch(CONFIG, LENGTHS)
    first, second = objectives.views_for(batch, built(), RNG)
    assert first.batch is batch and (first.draw, second.draw) == (0, 1)
    assert not first.sources and first.token_ids is None and not second.sources and second.token_ids is None
    chosen = [0, 2, 3, 4]
    expected = select(batch, chosen)
    for name in ("token_ids", "visual", "speech", "offsets", "sample_keys"):
        assert torch.equal(getattr(second.batch, name), getattr(expected, name))
    assert first.reads["view_contrast"].rows.tolist() == [int(batch.offsets[sample]) for sample in chosen]
    assert second.reads["view_contrast"].rows.tolist() == expected.offsets[:-1].tolist()
    assert first.reads["view_contrast"].labels.tolist() == second.reads["view_contrast"].labels.tolist() == [0, 1, 2, 3]
    assert first.reads["view_contrast"].head == second.reads["view_contrast"].head == "pooled"


def test_there_is_a_second_view_for_every_batch():
    two = objectives.build({"whole_word_mlm": {}, "view_contrast": {}})
    batch = random_batch(CONFIG, LENGTHS)
    chosen = {
        "whole_word_mlm": torch.tensor([True, False, False, False, True]),
        "view_contrast": torch.zeros(5, dtype=torch.bool),
    }
    first, second = objectives.views_of(batch, two, chosen, RNG)
    assert second.batch.samples == 0 and second.counts == {"view_contrast": 0} and first.counts["view_contrast"] == 0
    assert second.batch.offsets.tolist() == [0] and second.batch.visual.shape == (0, 24)
    capacity = Capacity(9, 30, 20, 20)
    capacities, rooms = objectives.padding_of([first, second], two, capacity)
    assert capacities == [capacity, capacity] and rooms[1] == {"view_contrast": 9} and rooms[0]["view_contrast"] == 9


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_trivial_predictor_guesses_one_of_the_micro_batch(count):
    loss = built().trivial(Statistics(9, {}), pair_of(count))
    assert float(loss.total) == pytest.approx(count * math.log(max(count, 1))) and loss.count == count
    assert float(loss.metrics["accuracy"]) == (count > 0)
    assert built().couples and not built().partners


def test_its_trivial_loss_is_that_of_views_that_are_all_alike():
    objective = built()
    same = torch.ones(3, 2)
    loss = objective.loss([same, same], pair_of(3), objective.module())
    assert float(loss.total.detach()) == pytest.approx(float(objective.trivial(Statistics(9, {}), pair_of(3)).total))

"""Contrast over the rows of all ranks: losses and gradients of one process on the union of their micro-batches."""

import threading

import pytest
import torch
from packed_batches import random_batch, small_config
from threads_as_ranks import on_ranks

from memofast import objectives
from memofast.data import Capacity, Read, View
from memofast.data.view import padded
from memofast.objectives import contrast, ranks

WIDTH = 6
SAMPLES = [(3, 0, 4), (0, 5, 0), (2, 1)]  # of each rank
SWAPPED = {3: [0, 2], 0: [], 4: [3, 1, 0], 5: [2], 2: [], 1: [0]}  # of a rank with so many, those with a third view


@pytest.fixture
def of_thread(monkeypatch):
    """The group of ranks that an objective finds; each thread sets its own."""
    own = threading.local()
    monkeypatch.setattr(contrast, "group_of_ranks", lambda: own.group)
    return own


@pytest.mark.parametrize("counts", [(2, 0, 3), (1, 2), (0, 0)])
def test_rows_of_all_ranks_in_a_circle_and_what_all_of_them_want_of_a_row(counts):
    def work(rank, group):
        rows = (100 * rank + torch.arange(2.0 * counts[rank]).reshape(-1, 2)).requires_grad_()
        (ranks.gathered(rows, group) * (1 + rank)).square().sum().backward()
        return rows.detach(), ranks.gathered(rows.detach(), group), rows.grad

    found = on_ranks(len(counts), work)
    for rank, (rows, everyone, gradient) in enumerate(found):
        assert torch.equal(everyone, torch.cat([theirs for theirs, *_ in found[rank:] + found[:rank]]))
        assert torch.equal(gradient, 2 * rows * sum((1 + other) ** 2 for other in range(len(counts))))


def objective_of(kind, **options):
    return objectives.build({kind: options})[kind]


def views_of(kind, count, swapped):
    batch, rows = random_batch(small_config(), [(2, 0, 0)] * 9), torch.arange(count)
    reads = [Read("pooled", rows, rows), Read("pooled", rows, rows)]
    if kind == "tuple_contrast":
        reads.append(Read("pooled", rows[: len(swapped)], torch.tensor(swapped, dtype=torch.int64)))
    return [View(batch, reads={kind: read}, draw=number) for number, read in enumerate(reads)]


def result(objective, outputs, views):
    """The loss, its metrics, and gradients of the rows and of the temperature."""
    module, leaves = objective.module(), [rows.clone().requires_grad_() for rows in outputs]
    loss = objective.loss(leaves, views, module)
    gradients = torch.autograd.grad(2.5 * loss.total, [*leaves, *module.parameters()])
    return loss, gradients


@pytest.mark.parametrize("counts", SAMPLES, ids=str)
@pytest.mark.parametrize("kind", ["view_contrast", "tuple_contrast"])
def test_the_ranks_together_are_one_process_on_the_union(of_thread, kind, counts):
    generator, parts = torch.Generator().manual_seed(7), 3 if kind == "tuple_contrast" else 2
    swapped = [SWAPPED[count] for count in counts]
    sizes = [(count, count, len(own))[:parts] for count, own in zip(counts, swapped, strict=True)]
    outputs = [[torch.randn(size, WIDTH, generator=generator) for size in own] for own in sizes]
    objective = objective_of(kind, gather="ranks", temperature=0.3)

    def work(rank, group):
        of_thread.group = group
        return result(objective, outputs[rank], views_of(kind, counts[rank], swapped[rank]))

    found = on_ranks(len(counts), work)
    before = [sum(counts[:rank]) for rank in range(len(counts))]
    union = [torch.cat(rows) for rows in zip(*outputs, strict=True)]
    labels = [begin + label for begin, own in zip(before, swapped, strict=True) for label in own]
    alone, wanted = result(objective_of(kind, temperature=0.3), union, views_of(kind, sum(counts), labels))
    assert sum(loss.count for loss, _ in found) == alone.count == sum(counts)
    torch.testing.assert_close(sum(loss.total for loss, _ in found), alone.total, rtol=1e-5, atol=1e-6)
    for name, value in alone.metrics.items():
        assert sum(float(loss.metrics[name]) for loss, _ in found) == float(value)
    *rows, scale = zip(*(gradients for _, gradients in found), strict=True)
    for ours, theirs in zip(rows, wanted, strict=False):
        torch.testing.assert_close(torch.cat(ours), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sum(scale), wanted[-1], rtol=1e-5, atol=1e-6)
    separate = [result(objective_of(kind, temperature=0.3), outputs[rank], views_of(kind, count, swapped[rank]))[0]
                for rank, count in enumerate(counts)]  # fmt: skip
    own = sum(float(loss.total.detach()) for loss in separate)
    assert sum(count > 0 for count in counts) < 2 or float(alone.total.detach()) > 1.05 * own


@pytest.mark.parametrize("kind", ["view_contrast", "tuple_contrast"])
def test_nothing_anywhere_is_a_loss_of_zero_with_gradients(of_thread, kind):
    objective = objective_of(kind, gather="ranks")

    def work(rank, group):
        of_thread.group = group
        return result(objective, [torch.zeros(0, WIDTH)] * len(views_of(kind, 0, [])), views_of(kind, 0, []))

    for loss, gradients in on_ranks(2, work):
        assert float(loss.total.detach()) == 0 and loss.count == 0 and not gradients[-1].any()


def test_one_process_and_validation_compare_what_is_theirs(of_thread):
    rows = [torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    views, of_thread.group = views_of("view_contrast", 3, []), None
    plain, gathering = objective_of("view_contrast"), objective_of("view_contrast", gather="ranks")
    assert gathering.gathers and not plain.gathers
    expected = plain.loss(rows, views, plain.module()).total
    assert torch.equal(gathering.loss(rows, views, gathering.module()).total, expected)
    assert ranks.group_of_ranks() is None
    del of_thread.group  # so that asking for it fails
    with torch.no_grad():
        assert torch.equal(gathering.loss(rows, views, gathering.module()).total, expected)


def test_tensors_of_fixed_shape_are_refused(of_thread):
    of_thread.group = "a group of two"
    objective = objective_of("view_contrast", gather="ranks")
    views = padded(views_of("view_contrast", 3, []), [Capacity(9, 20, 5, 5)] * 2, [{"view_contrast": 5}] * 2)
    with pytest.raises(ValueError, match="view_contrast: rows of ranks are not gathered in tensors of fixed shape"):
        objective.loss([torch.ones(5, WIDTH)] * 2, views, objective.module())

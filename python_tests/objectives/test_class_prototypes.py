"""Prototypes that change while a model learns: pools, momenta and the curriculum."""

import numpy as np
import pytest
import torch

from memofast.objectives import class_prototypes
from memofast.objectives.class_contrast import polar_factor
from memofast.objectives.class_prototypes import (
    AdaptivePrototypes,
    ClassPools,
    Curriculum,
    class_means,
    difficulties,
    orthonormal_rows,
)

RNG = torch.tensor([3, 1])


def rows(n, width=4, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_prototypes_are_means_of_those_drawn_or_centres(real_data, monkeypatch):
    """The pools and draws of a run of the original."""
    found = np.load(real_data.parent / "golden" / "companions" / "spcl_original.npz")
    one = {name[8:]: torch.from_numpy(found[name]) for name in found.files if name.startswith("coupled/")}
    pools = ClassPools(one["default_centers"], 81, 64)
    for number in range(4):
        pools.counts[number] = len(one[f"pools/{number}"])
        pools.members[number, : pools.counts[number]] = one[f"pools/{number}"]

    def as_drawn(rng, site, classes, count):
        words = torch.full((classes, count), count)
        for number in (0, 1, 3):
            words[number, one[f"drawn/{number}"]] = torch.arange(64)
        return words

    monkeypatch.setattr(class_prototypes, "_words", as_drawn)
    torch.testing.assert_close(pools.prototypes(RNG), one["prototypes"], rtol=1e-12, atol=1e-13)


def test_a_pool_begins_with_its_centre_fills_and_then_replaces_at_random():
    centres = rows(3)
    pools = ClassPools(torch.zeros(3, 4), 6, 3)
    pools.begin(centres)
    assert pools.counts.tolist() == [1, 1, 1] and torch.equal(pools.prototypes(RNG), centres)
    z, labels = rows(12, seed=1), torch.tensor([0, 1] + [0] * 10)
    pools.add(z[:2], labels[:2], RNG)
    pools.add(z[2:5], labels[2:5], RNG)
    assert pools.counts.tolist() == [5, 2, 1]
    assert torch.equal(pools.members[0, :5], torch.cat((centres[:1], z[:1], z[2:5])))
    found = pools.prototypes(RNG)
    assert torch.equal(found[1:], centres[1:])  # as they have fewer than three
    assert not torch.equal(found[0], pools.prototypes(torch.tensor([3, 2]))[0])
    assert torch.equal(found, pools.prototypes(RNG))
    pools.add(z[5:], labels[5:], RNG)
    assert pools.counts.tolist() == [6, 2, 1]
    known = torch.cat((centres[:1], z[labels == 0]))
    kept = {int((known == row).all(1).nonzero()) for row in pools.members[0]}
    assert len(kept) == 6 and kept != {6, 7, 8, 9, 10, 11} != set(range(6)) != kept


def test_momentum_goes_on_where_a_class_is_absent():
    start = orthonormal_rows(3, 8, 5)
    torch.testing.assert_close(start @ start.T, torch.eye(3))
    assert torch.equal(start, orthonormal_rows(3, 8, 5)) and not torch.equal(start, orthonormal_rows(3, 8, 6))
    prototypes = AdaptivePrototypes(start.clone(), "head", 0.9, 0.5, 0.0, "polar")
    z = rows(2, 8)
    found = prototypes.move(z, torch.tensor([1, 1]))
    moved = 0.5 * 0.1 * (0.9 * (z[0] - start[1]) + z[1] - start[1])
    torch.testing.assert_close(prototypes.momentum, torch.stack((torch.zeros(8), moved, torch.zeros(8))))
    torch.testing.assert_close(found, polar_factor(start + prototypes.momentum))
    again = prototypes.move(z[:0], torch.zeros(0, dtype=torch.int64))
    torch.testing.assert_close(again, polar_factor(found + prototypes.momentum))
    first = AdaptivePrototypes(start.clone(), "first", 0.2, 0.5, 0.7, "polar")
    first.move(z[:1], torch.tensor([2]))
    torch.testing.assert_close(first.move(z[:0], torch.zeros(0, dtype=torch.int64))[2], start[2] + 2 * 0.2 * z[0])


def test_curriculum_goes_from_easy_to_hard():
    keys = torch.arange(4000)
    curriculum = Curriculum(keys, 5)
    distances = torch.linspace(0, 1, 4000)[torch.randperm(4000, generator=torch.Generator().manual_seed(1))]
    for epoch, easy, hard in ((1, 0.75, 0.25), (3, 0.55, 0.45), (5, 0.35, 0.65)):
        curriculum.begin(epoch, distances, keys, torch.tensor([7, epoch]))
        chosen = curriculum.of(keys)
        assert chosen[distances < 0.5].float().mean() == pytest.approx(easy, abs=0.04)
        assert chosen[distances > 0.5].float().mean() == pytest.approx(hard, abs=0.04)
    curriculum.begin(1, torch.tensor([0.1, 0.9]), torch.tensor([8, 30]), RNG)
    assert curriculum.chosen.nonzero().flatten().tolist() == [8]  # the easiest surely, the hardest never


def test_centres_and_difficulties():
    z, labels = torch.tensor([[1.0, 0], [3, 0], [0, 2]]), torch.tensor([0, 0, 2])
    centres = class_means(z, labels, 3)
    assert centres.tolist() == [[2, 0], [0, 0], [0, 2]]
    torch.testing.assert_close(
        difficulties(torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([0, 0]), centres[[0, 2]]),
        torch.tensor([0 / 0.5, 1 / 1.5]),
    )

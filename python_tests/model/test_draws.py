"""Dropout of sequence networks: the numbers that every operator draws, one site after another."""

import pytest
import torch

from memofast.model.draws import Draws
from memofast.ops.philox import Place, hidden_keep_mask, keep_scale, site


@pytest.mark.parametrize("p", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("shape", [(5, 1), (5, 33), (5, 3, 1), (5, 4, 70)])
def test_masks_are_those_of_the_reference(shape, p):
    rng, keys = torch.tensor([3, 7]), torch.tensor([5, -(2**60), 2**61, 0, 9])
    draws, steps = Draws(rng, keys), shape[1] if len(shape) == 3 else 1
    offsets = torch.arange(6, dtype=torch.int32) * steps
    for number in range(2):
        place = site(number, Place.HEAD)
        wanted = hidden_keep_mask(rng, place, keys, offsets, 5 * steps, shape[-1], p).view(shape) * keep_scale(p)
        assert torch.equal(draws.mask(shape, p), wanted)


def test_nothing_is_dropped_without_numbers_and_sites_count_anyway():
    values, keys = torch.rand(4, 6), torch.arange(4)
    assert Draws(None, keys).dropped(values, 0.5) is values
    rng = torch.tensor([1, 2])
    one, other = Draws(rng, keys), Draws(rng, keys)
    one.dropped(values, 0.5), other.dropped(values, 0.0)
    assert torch.equal(one.dropped(values, 0.5), other.dropped(values, 0.5))

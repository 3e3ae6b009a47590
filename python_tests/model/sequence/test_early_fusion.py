"""EF-LSTM: the original's numbers, and samples that no batch and no padding changes."""

import numpy as np
import pytest
import torch
from sequence_networks import (
    NOTHING,
    ORDER,
    WIDTHS,
    a_network,
    an_original,
    assert_alone_as_in_a_batch,
    padded,
    parts_of,
    random_rows,
)

from memofast.model.draws import Draws
from memofast.model.sequence.network import Shape
from memofast.model.sequence.rows import averaged_as_padded

SIZES = {"width": 8, "layers": 2}
LENGTHS = {"text": [4, 0, 1, 0, 6], "visual": [9, 5, 0, 0, 2], "speech": [2, 7, 3, 0, 6]}


@pytest.mark.real
def test_the_originals_numbers(real_data):
    parts = parts_of(np.load(real_data.parent / "golden" / "companions" / "mmsa_models.npz"), "ef_lstm")
    rows = {name: padded(parts[f"in/{place}"]) for place, name in enumerate(ORDER)}
    shape = Shape(WIDTHS, 1, "regression", dict.fromkeys(WIDTHS, 6))
    network = an_original("ef_lstm", parts, shape, **SIZES)
    torch.testing.assert_close(network(rows, NOTHING).outputs, parts["out/M"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("modalities", [("text",), ("visual", "speech"), ("text", "visual", "speech")])
def test_a_sample_is_the_same_alone(modalities):
    network = a_network("ef_lstm", Shape({name: WIDTHS[name] for name in modalities}, 2, "single"), **SIZES)
    assert not hasattr(network, "norm")
    assert_alone_as_in_a_batch(network, random_rows({name: LENGTHS[name] for name in modalities}, longer=2))


def test_but_for_the_norm_of_steps_it_is_the_original_where_nothing_is_padded():
    whole = random_rows({name: [5, 5] for name in WIDTHS})
    shape = Shape(WIDTHS, 1, "regression", dict.fromkeys(WIDTHS, 5))
    network, original = a_network("ef_lstm", shape, **SIZES), a_network("ef_lstm", shape, compat=True, **SIZES)
    network.load_state_dict({name: v for name, v in original.state_dict().items() if not name.startswith("norm.")})
    original.norm.eps = 0.0
    torch.testing.assert_close(network(whole, NOTHING).outputs, original(whole, NOTHING).outputs)
    with torch.no_grad():
        original.norm.running_mean[2] = 1
    assert (network(whole, NOTHING).outputs - original(whole, NOTHING).outputs).abs().max() > 1e-4


def test_steps_of_longer_and_shorter_modalities():
    rows = {
        "text": padded(torch.zeros(1, 3, 1)),
        "visual": padded(3 * torch.arange(7.0).view(1, 7, 1)),
        "speech": padded(torch.tensor([[[4.0], [5.0]]])),
    }
    found = {name: one.values[0, :, 0].tolist() for name, one in averaged_as_padded(rows).items()}
    assert found == {"text": [0, 0, 0], "visual": [9, 11, 13], "speech": [4, 5, 5]}


def test_gradients_reach_every_parameter_and_dropout_is_by_sample():
    network = a_network("ef_lstm", dropout=0.4, **SIZES).train()
    rows, keys, rng = random_rows(LENGTHS), torch.tensor([31, 7, 5, 11, 2]), torch.tensor([5, 9])
    together = network(rows, Draws(rng, keys)).outputs
    together.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    order = [2, 0, 4, 3, 1]
    turned = {name: type(one)(one.values[order], one.lengths[order]) for name, one in rows.items()}
    torch.testing.assert_close(network(turned, Draws(rng, keys[order])).outputs, together[order])
    assert (network(rows, Draws(rng + 1, keys)).outputs - together).abs().max() > 1e-5

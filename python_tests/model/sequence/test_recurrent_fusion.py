"""Recurrent fusion: the laboratory's numbers, and samples that no batch and no padding changes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sequence_networks import (
    NOTHING,
    WIDTHS,
    a_network,
    an_original,
    assert_alone_as_in_a_batch,
    padded,
    parts_of,
    random_rows,
)

from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.sequence.network import Shape
from memofast.model.sequence.originals import renamed
from memofast.model.sequence.recurrent_fusion import RecurrentFusionOptions
from memofast.sections import checked

LENGTHS = {"text": [4, 7, 1, 3], "visual": [4, 7, 1, 3], "speech": [4, 7, 1, 3]}


@pytest.mark.real
def test_the_laboratorys_numbers_and_gradients(real_data):
    parts = parts_of(np.load(real_data.parent / "golden" / "companions" / "lab_lstm.npz"), "small")
    network = an_original(
        "recurrent_fusion", parts, Shape({"text": 12, "visual": 5, "speech": 7}, 1, "regression"), width=16
    )
    names = {"text": "text", "visual": "vision", "speech": "audio"}
    given = {name: parts[own].requires_grad_() for name, own in names.items()}
    outputs = network({name: padded(values) for name, values in given.items()}, NOTHING).outputs
    torch.testing.assert_close(outputs, parts["out"], rtol=0, atol=1e-5)
    errors = {"mse": F.mse_loss, "mae": F.l1_loss, "huber_smooth_l1": F.smooth_l1_loss}
    for name, error in errors.items():
        torch.testing.assert_close(error(outputs[:, 0], parts["label"]), parts[name], rtol=0, atol=1e-5)
    F.mse_loss(outputs[:, 0], parts["label"]).backward()
    for name, own in names.items():
        torch.testing.assert_close(given[name].grad, parts[f"grad/{own}"], rtol=0, atol=1e-5)
    wanted = {name.removeprefix("grad_state/"): v for name, v in parts.items() if name.startswith("grad_state/")}
    wanted = renamed(wanted, network.state_names)
    assert len(wanted) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=0, atol=1e-5)


def test_its_published_size():
    shape = Shape({"text": 300, "visual": 35, "speech": 74}, 1, "regression")
    network = a_network("recurrent_fusion", shape)
    assert sum(weight.numel() for weight in network.parameters()) == 582_067


@pytest.mark.parametrize(
    "options", [{}, {"encoder": "transformer", "layers": 2, "heads": 2}, {"fusion": "attention"}, {"layer_norm": False}]
)
@pytest.mark.parametrize("modalities", [("text",), ("visual", "speech"), ("text", "visual", "speech")])
def test_a_sample_is_the_same_alone(options, modalities):
    widths = {name: WIDTHS[name] for name in modalities}
    network = a_network("recurrent_fusion", Shape(widths, 2, "single"), width=16, **options)
    lengths = {name: own for name, own in LENGTHS.items() if name in modalities}
    assert_alone_as_in_a_batch(network, random_rows(lengths, longer=2))


@pytest.mark.parametrize("options", [{}, {"encoder": "transformer", "heads": 2}, {"fusion": "attention"}])
def test_other_steps_and_absent_modalities(options):
    network = a_network("recurrent_fusion", width=16, **options)
    lengths = {"text": [4, 0, 1, 0, 6], "visual": [9, 5, 0, 0, 2], "speech": [2, 7, 3, 0, 6]}
    assert_alone_as_in_a_batch(network, random_rows(lengths))
    rows = random_rows(lengths)
    rows["speech"].values[1, 7:] = 9.0  # past its end
    with torch.no_grad():
        changed = network(rows, NOTHING).outputs
        torch.testing.assert_close(changed, network(random_rows(lengths), NOTHING).outputs, rtol=0, atol=1e-6)


def test_padding_counts_with_compat_alone():
    rows, longer = random_rows(LENGTHS), random_rows(LENGTHS, longer=3)
    longer = {
        name: padded(torch.nn.functional.pad(rows[name].values, (0, 0, 0, 3)), rows[name].lengths) for name in rows
    }
    for compat in (False, True):
        network = a_network("recurrent_fusion", width=16, compat=compat)
        with torch.no_grad():
            difference = (network(rows, NOTHING).outputs - network(longer, NOTHING).outputs).abs().max()
        assert (difference > 1e-4) == compat, compat
    whole = {name: padded(one.values) for name, one in random_rows({n: [5, 5] for n in LENGTHS}).items()}
    values = [
        a_network("recurrent_fusion", width=16, compat=compat)(whole, NOTHING).outputs for compat in (False, True)
    ]
    torch.testing.assert_close(*values)  # without padding they are one


def test_values_are_bound_and_classes_are_not():
    rows = random_rows(LENGTHS)
    rows["text"].values.mul_(100)
    for kind, bound in (("regression", 0.5), ("single", 0.5)):
        network = a_network("recurrent_fusion", Shape(WIDTHS, 1, kind), width=16, bound=bound)
        with torch.no_grad():
            network.head.bias.fill_(50.0)
            outputs = network(rows, NOTHING).outputs
        assert bool((outputs <= 0.5).all()) == (kind == "regression")


def test_dropout_is_by_sample_and_step():
    network = a_network("recurrent_fusion", width=16, encoder="transformer", heads=2, dropout=0.5)
    rng, keys = torch.tensor([5, 9]), torch.tensor([31, 7, 5, 11])
    rows = random_rows(LENGTHS)
    together = network(rows, Draws(rng, keys)).outputs
    order = [2, 0, 3, 1]
    turned = {name: type(one)(one.values[order], one.lengths[order]) for name, one in rows.items()}
    torch.testing.assert_close(network(turned, Draws(rng, keys[order])).outputs, together[order])
    assert (network(rows, Draws(rng + 1, keys)).outputs - together).abs().min() > 1e-5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"width": 40, "encoder": "transformer"}, "no multiple of 8"),
        ({"compat": True, "encoder": "transformer"}, "compat repeats"),
    ],
)
def test_options_that_do_not_go_together(values, said):
    with pytest.raises(MemofastError, match=said):
        checked(values, "recipe", RecurrentFusionOptions)

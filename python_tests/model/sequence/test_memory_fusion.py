"""Memory fusion: the original's numbers, and samples that no batch and no padding changes."""

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

from memofast.errors import MemofastError
from memofast.model.sequence.draws import Draws
from memofast.model.sequence.network import Shape
from memofast.model.sequence.recurrences import cell_states, gated_memory, lstm
from memofast.model.sequence.rows import Rows

SIZES = {
    "hidden": {"text": 8, "speech": 4, "visual": 6},
    "memory": 5,
    "retain": {"width": 5, "dropout": 0.2},
    "update": {"width": 4, "dropout": 0.2},
    "head": {"width": 6, "dropout": 0.2},
}
MFN = SIZES | {"attention": {"width": 6, "dropout": 0.2}, "proposal": {"width": 7, "dropout": 0.2}}
GRAPH = SIZES | {"vertex": 6, "proposal": {"width": 6, "dropout": 0.2}}
KINDS = {"mfn": MFN, "graph_mfn": GRAPH}
ANY = pytest.mark.parametrize("kind", KINDS)
LENGTHS = {"text": [4, 0, 1, 0, 6], "visual": [9, 5, 0, 0, 2], "speech": [2, 7, 3, 0, 6]}
SAME = {name: [5, 5, 5] for name in WIDTHS}


@pytest.mark.real
@ANY
def test_the_originals_numbers(kind, real_data):
    parts = parts_of(np.load(real_data.parent / "golden" / "companions" / "mmsa_models.npz"), kind)
    network = an_original(kind, parts, **KINDS[kind])
    rows = {name: padded(parts[f"in/{number}"]) for number, name in enumerate(ORDER)}
    outputs = network(rows, NOTHING).outputs
    torch.testing.assert_close(outputs, parts["out/M"], rtol=0, atol=1e-5)
    if kind == "mfn":
        torch.testing.assert_close(network.fused(rows, NOTHING), parts["out/L"], rtol=0, atol=1e-5)
    else:
        hidden = {name: states for name, (states, _) in network.states(network.steps(rows)).items()}
        for step, efficacies in enumerate(network.graphed(hidden)[1]):
            torch.testing.assert_close(efficacies, parts[f"out/Efficacies/{step}"], rtol=0, atol=1e-5)


@ANY
@pytest.mark.parametrize("modalities", [("text",), ("visual", "speech"), ("text", "visual", "speech")])
def test_a_sample_is_the_same_alone(kind, modalities):
    network = a_network(kind, Shape({name: WIDTHS[name] for name in modalities}, 2, "single"), **KINDS[kind])
    lengths = {name: own for name, own in LENGTHS.items() if name in modalities}
    assert_alone_as_in_a_batch(network, random_rows(lengths, longer=2))


@ANY
def test_padding_counts_with_compat_alone(kind):
    rows = random_rows({name: [4, 7, 1, 3] for name in WIDTHS})
    longer = {name: Rows(torch.nn.functional.pad(one.values, (0, 0, 0, 3)), one.lengths) for name, one in rows.items()}
    for compat in (False, True):
        network = a_network(kind, compat=compat, **KINDS[kind])
        with torch.no_grad():
            difference = (network(rows, NOTHING).outputs - network(longer, NOTHING).outputs).abs().max()
        assert (difference > 1e-4) == compat, compat
    whole = random_rows(SAME)
    values = [a_network(kind, compat=compat, **KINDS[kind])(whole, NOTHING).outputs for compat in (False, True)]
    torch.testing.assert_close(*values, rtol=0, atol=0)  # without padding they are one


@ANY
def test_every_parameter_learns(kind):
    network = a_network(kind, **KINDS[kind]).train()
    draws = Draws(torch.tensor([5, 9]), torch.arange(3))
    network(random_rows(SAME), draws).outputs.square().sum().backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


@ANY
def test_dropout_is_by_sample_and_step(kind):
    network = a_network(kind, **KINDS[kind]).train()
    rng, keys, rows = torch.tensor([5, 9]), torch.tensor([31, 7, 5, 9, 11]), random_rows(LENGTHS)
    together = network(rows, Draws(rng, keys)).outputs
    order = [2, 0, 3, 1, 4]
    turned = {name: Rows(one.values[order], one.lengths[order]) for name, one in rows.items()}
    torch.testing.assert_close(network(turned, Draws(rng, keys[order])).outputs, together[order])
    assert (network(rows, Draws(rng + 1, keys)).outputs - together).abs().max() > 1e-5


def test_compat_needs_as_many_rows_of_every_modality():
    shape = Shape(WIDTHS, 1, "regression", {"text": 50, "visual": 500, "speech": 375})
    with pytest.raises(MemofastError, match="text 50, visual 500, speech 375; import an aligned one"):
        a_network("mfn", shape, compat=True)
    a_network("mfn", shape)


def test_cells_and_their_gradients_are_those_of_torch():
    torch.manual_seed(0)
    whole = torch.nn.LSTM(5, 7).double()
    cell = torch.nn.LSTMCell(5, 7).double()
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in whole.state_dict().items()})
    steps = torch.randn(6, 3, 5, dtype=torch.float64)
    hidden, cells = cell_states(cell, steps)
    wanted, (_, last) = whole(steps)
    torch.testing.assert_close(hidden, wanted)
    torch.testing.assert_close(cells[-1], last[0])
    weights = torch.randn(6, 3, 7, dtype=torch.float64)
    ((hidden * weights).sum() + cells[-1].sum()).backward()
    ((wanted * weights).sum() + last.sum()).backward()
    for own, other in zip(cell.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_gradients_of_recurrences(length):
    generator = torch.Generator().manual_seed(3)

    def some(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    assert torch.autograd.gradcheck(lstm, (some(length, 2, 12), some(12, 3)))
    gates = [torch.nn.Linear(units, 3).double() for units in (4, 2)]
    for mask in (None, (torch.rand(length, 2, 6, generator=generator) > 0.4).double() * 2):

        def memory(proposals, inner, weight, *_):
            return gated_memory(proposals, inner, mask, weight, gates)  # noqa: B023

        given = some(length, 2, 3), some(length, 2, 6), some(6, 3)
        assert torch.autograd.gradcheck(memory, (*given, *(p for gate in gates for p in gate.parameters())))
        found = memory(*given)[-1]
        before = torch.zeros(2, 3, dtype=torch.float64)
        for step in range(length):
            units = (given[1][step] + before @ given[2].T).relu() * (1 if mask is None else mask[step])
            retain, update = gates[0](units[:, :4]).sigmoid(), gates[1](units[:, 4:]).sigmoid()
            before = retain * before + update * given[0][step]
        torch.testing.assert_close(found, before)

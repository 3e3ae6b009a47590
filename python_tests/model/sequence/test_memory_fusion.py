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

from memofast import _C
from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.family import Lesson
from memofast.model.sequence.factorisation import divergence_of
from memofast.model.sequence.network import Shape
from memofast.model.sequence.recurrences import (
    cell_states,
    gated_memory,
    lstm,
    lstm_backward_reference,
    lstm_reference,
)
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
FACTORS = MFN | {
    "codes": {"joint": 6, "text": 5, "speech": 6, "visual": 6},
    "factors": {"joint": {"width": 5}, "text": {"width": 4}, "speech": {"width": 3}, "visual": {"width": 5}},
    "head": {"width": 5},
}
KINDS = {"mfn": MFN, "graph_mfn": GRAPH, "mfm": FACTORS}
ANY = pytest.mark.parametrize("kind", KINDS)
LENGTHS = {"text": [4, 0, 1, 0, 6], "visual": [9, 5, 0, 0, 2], "speech": [2, 7, 3, 0, 6]}
RNG = torch.tensor([5, 9])
LESSON = Lesson(torch.zeros(3, 1), torch.arange(3), {}, 1, 1, torch.arange(3))
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
        torch.testing.assert_close(network.fused(network.steps(rows), NOTHING), parts["out/L"], rtol=0, atol=1e-5)
    elif kind == "graph_mfn":
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
    answers = network(random_rows(SAME), Draws(RNG, torch.arange(3)), LESSON)
    assert answers.losses.keys() == network.losses.keys()
    loss = answers.outputs.square().sum() + sum(values.mean() for values in answers.losses.values())
    loss.backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


@ANY
def test_dropout_is_by_sample_and_step(kind):
    network = a_network(kind, **KINDS[kind]).train()
    rng, keys, rows = RNG, torch.tensor([31, 7, 5, 9, 11]), random_rows(LENGTHS)
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


@pytest.mark.parametrize(("size", "samples"), [(1, 6), (5, 7), (8, 1), (13, 6), (32, 20)])
def test_the_compiled_recurrence_is_the_reference(size, samples, poisoned_memory):
    generator, steps = torch.Generator().manual_seed(size), 3

    def some(*shape):
        return torch.randn(shape, generator=generator)

    gates, weight, before = 3 * some(steps, samples, 4 * size), some(4 * size, size), some(2, 1, samples, size)
    gates[0, 0, :3] = torch.tensor([500.0, -500.0, 90.0])

    def states():
        begun = (torch.cat((start, torch.empty(steps, samples, size))) for start in before)
        return [gates.clone(), weight, *begun, torch.empty(steps, samples, size)]

    compiled, plain = states(), states()
    assert _C.lstm(*compiled) == 0
    lstm_reference(*plain)
    for ours, theirs in zip(compiled, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    active, _, _, cells, squashed = plain
    given = active, weight, cells, squashed, *some(2, steps, samples, size)
    found, wanted = (torch.empty_like(gates) for _ in range(2))
    assert _C.lstm_backward(*given, found) == 0
    lstm_backward_reference(*given, wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert _C.lstm(gates[:, 1:], *compiled[1:]) != 0  # samples that do not follow one another
    assert _C.lstm(gates, some(4 * size + 4, size), *compiled[2:]) != 0
    assert _C.lstm_backward(*given, found[1:]) != 0


def test_threads_share_the_samples_of_a_recurrence():
    """As many cells as two threads are worth, and a share of the samples that is not the other's."""
    generator, steps, samples, size = torch.Generator().manual_seed(2), 64, 515, 65
    gates = torch.randn(steps, samples, 4 * size, generator=generator)
    weight = 0.2 * torch.randn(4 * size, size, generator=generator)
    hidden, cells = lstm(gates, weight)
    first = slice(255, 262)
    torch.testing.assert_close(hidden[:, first], lstm(gates[:, first], weight)[0], rtol=0, atol=0)
    torch.testing.assert_close(cells[:, first], lstm(gates[:, first], weight)[1], rtol=0, atol=0)


@pytest.mark.real
def test_generated_rows_err_as_the_originals(real_data):
    parts = parts_of(np.load(real_data.parent / "golden" / "companions" / "mmsa_models.npz"), "mfm")
    network = an_original("mfm", parts, **FACTORS)
    network.apply(_never_dropping)
    rows = {name: padded(parts[f"in/{number}"]) for number, name in enumerate(ORDER)}
    answers = network(rows, Draws(RNG, torch.arange(3)), LESSON)
    torch.testing.assert_close(answers.outputs, parts["out/M"], rtol=0, atol=1e-5)
    assert network.losses["code_divergence"] == 100
    errors = {name: error for name, error in answers.losses.items() if name != "code_divergence"}
    assert all(error.shape == (3,) for error in errors.values())
    found = sum(network.losses[name] * error.mean() for name, error in errors.items())
    torch.testing.assert_close(found, parts["out/gen_loss"], rtol=0, atol=1e-5)


def _never_dropping(module):
    if hasattr(module, "dropout"):
        module.dropout = 0.0


def test_only_true_rows_are_generated_again():
    network = a_network("mfm", **FACTORS).train()
    network.apply(_never_dropping)
    rows, keys = random_rows({"text": [4, 0, 1], "visual": [4, 3, 0], "speech": [0, 2, 1]}, longer=2), torch.arange(3)
    found = network(rows, Draws(RNG, keys), LESSON).losses
    assert (found["text_reconstruction"] > 0).tolist() == [True, False, True]
    assert (found["visual_reconstruction"] > 0).tolist() == [True, True, False]
    for sample in range(3):
        one = {
            name: Rows(one.values[[sample], : max(1, one.lengths[sample])], one.lengths[[sample]])
            for name, one in rows.items()
        }
        alone = network(one, Draws(RNG, keys[[sample]]), LESSON).losses
        for name in ("text", "visual", "speech"):
            torch.testing.assert_close(alone[f"{name}_reconstruction"][0], found[f"{name}_reconstruction"][sample])
    nothing = network(random_rows({name: [0, 0] for name in WIDTHS}), Draws(RNG, keys[:2]), LESSON).losses
    assert all(torch.isfinite(loss).all() for loss in nothing.values())


def test_divergence_is_the_mean_over_pairs():
    generator = torch.Generator().manual_seed(2)
    codes, drawn = (torch.randn(4, 3, generator=generator) for _ in range(2))

    def similarity(ours, others):
        every = [torch.exp(-((one - other) ** 2).mean() / 3) for one in ours for other in others]
        return sum(every) / len(every)

    wanted = similarity(drawn, drawn) + similarity(codes, codes) - 2 * similarity(drawn, codes)
    torch.testing.assert_close(divergence_of(codes, drawn), wanted)
    torch.testing.assert_close(divergence_of(codes, codes), torch.tensor(0.0))


def test_normal_numbers_are_by_sample_and_update():
    keys = torch.arange(20000)
    drawn = Draws(RNG, keys).normal(6)
    torch.testing.assert_close(drawn.T.cov(), torch.eye(6), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.mean(0), torch.zeros(6), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.pow(4).mean(0), torch.full((6,), 3.0), rtol=0, atol=0.3)
    assert torch.equal(Draws(RNG, keys[[7, 3]]).normal(6), drawn[[7, 3]])
    assert not torch.equal(Draws(RNG + 1, keys).normal(6), drawn)
    with pytest.raises(ValueError, match="needs rng"):
        NOTHING.normal(6)


class _AtZero(Draws):
    """Drops nothing, and every number is 0."""

    def mask(self, shape, p):
        return None

    def normal(self, width):
        return torch.zeros(len(self._keys), width)


def test_codes_of_absent_modalities_do_not_diverge():
    network = a_network("mfm", **FACTORS)
    rows = random_rows({"text": [4, 2, 1], "visual": [4, 2, 1], "speech": [0, 2, 1]})
    found = network(rows, _AtZero(RNG, torch.arange(3)), LESSON).losses["code_divergence"]
    steps = network.steps(rows)
    codes = {name: network.codes[name](network._encoded(name, steps[name])) for name in WIDTHS}
    codes["speech"] = codes["speech"][1:]
    codes["joint"] = network.codes["joint"](network.fused(steps, NOTHING))
    torch.testing.assert_close(found, sum(divergence_of(code, torch.zeros_like(code)) for code in codes.values()))

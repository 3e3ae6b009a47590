"""MISA: the original's numbers and losses, and samples that no batch changes."""

import numpy as np
import pytest
import torch
from sequence_networks import (
    NOTHING,
    WIDTHS,
    a_network,
    an_original,
    assert_alone_as_in_a_batch,
    golden_of,
    padded,
    random_rows,
    samples_lesson,
)

from memofast.model.draws import Draws
from memofast.model.sequence.misa import difference, moment_discrepancy
from memofast.model.sequence.network import Shape

SHAPE = Shape(WIDTHS, 1, "regression", text_encoder=12)
LENGTHS = {"text": [4, 7, 1, 3], "visual": [6, 0, 2, 3], "speech": [2, 9, 0, 3]}


@pytest.mark.real
def test_the_originals_numbers(real_data):
    parts = golden_of(real_data, "misa")
    shape = Shape({"text": 768, "visual": 7, "speech": 5}, 1, "regression", text_encoder=768)
    network = an_original("misa", parts, shape, width=6)
    lengths = parts["in/0"][:, 1].sum(1).long()
    assert lengths.tolist() != [6, 6, 6]
    rows = {"text": padded(parts["hidden"], lengths), "visual": padded(parts["in/2"]), "speech": padded(parts["in/1"])}
    rows["text"] = rows["text"].with_values(rows["text"].values)
    seen = {}
    network._losses = lambda whole, own, common, present: seen.update(whole=whole, own=own, common=common) or {}
    with torch.no_grad():
        outputs = network(rows, NOTHING, samples_lesson(3)).outputs
    torch.testing.assert_close(outputs, parts["out/M"], rtol=0, atol=1e-5)
    for name, letter in (("text", "t"), ("visual", "v"), ("speech", "a")):
        for of, theirs in (("own", "private_{}"), ("common", "shared_{}"), ("whole", "{}_orig")):
            wanted = parts[f"out/utt_{theirs.format(letter)}"]
            torch.testing.assert_close(seen[of][name], wanted, rtol=0, atol=1e-5)
        again = network.reconstructions[name](seen["own"][name] + seen["common"][name])
        torch.testing.assert_close(again, parts[f"out/utt_{letter}_recon"], rtol=0, atol=1e-5)


@pytest.mark.real
def test_the_originals_losses(real_data):
    parts = golden_of(real_data, "misa_losses")
    x, y = parts["x1"], parts["x2"]
    torch.testing.assert_close(difference(x, y), parts["diff"], rtol=1e-5, atol=0)
    torch.testing.assert_close(moment_discrepancy(x, y, 5), parts["cmd5"], rtol=1e-5, atol=0)
    network = a_network("misa", SHAPE, width=6, heads=2)
    one, every = torch.rand(7, 6), torch.ones(7, dtype=torch.bool)
    for part in network.reconstructions.values():
        torch.nn.init.eye_(part.weight), torch.nn.init.zeros_(part.bias)
    own = {name: one * number for number, name in enumerate(WIDTHS, 1)}
    common = {name: one**number for number, name in enumerate(WIDTHS, 1)}
    whole = {name: own[name] + common[name] + number for number, name in enumerate(WIDTHS, 1)}
    losses = network._losses(whole, own, common, dict.fromkeys(WIDTHS, every))
    pairs = [("text", "visual"), ("text", "speech"), ("visual", "speech")]
    wanted = sum(moment_discrepancy(common[a], common[b], 5) for a, b in pairs) / 3
    torch.testing.assert_close(losses["similarity"], wanted)
    apart = sum(difference(own[a], own[b]) for a, b in pairs) + sum(difference(own[a], common[a]) for a in WIDTHS)
    torch.testing.assert_close(losses["difference"], apart)
    torch.testing.assert_close(losses["reconstruction"], torch.full((7,), (1 + 4 + 9) / 3))  # squares of what was added
    assert network.losses == {"similarity": 0.3, "difference": 0.1, "reconstruction": 1.0}


def test_a_sample_is_the_same_alone():
    network = a_network("misa", SHAPE, width=8)
    assert_alone_as_in_a_batch(network, random_rows(LENGTHS, longer=2))
    alone = a_network("misa", Shape({"text": 12}, 2, "single", text_encoder=12), width=8)
    assert_alone_as_in_a_batch(alone, random_rows({"text": LENGTHS["text"]}))


def test_compat_differs_where_lengths_do():
    same, other = random_rows({name: [4, 7, 2, 3] for name in WIDTHS}), random_rows(LENGTHS)
    networks = [a_network("misa", SHAPE, width=8, compat=compat) for compat in (False, True)]
    with torch.no_grad():
        torch.testing.assert_close(*(network(same, NOTHING).outputs for network in networks))
        outputs = [network(other, NOTHING).outputs for network in networks]
    assert (outputs[0] - outputs[1])[[0, 1, 2]].abs().min() > 1e-5


@pytest.mark.parametrize("samples", [1, 4])
def test_losses_are_of_what_samples_have_and_gradients_are_finite(samples):
    network = a_network("misa", SHAPE, width=8).train()
    rows = {name: type(one)(one.values[:samples], one.lengths[:samples]) for name, one in random_rows(LENGTHS).items()}
    draws = Draws(torch.tensor([1, 2]), torch.arange(samples))
    answers = network(rows, draws, samples_lesson(samples))
    assert set(answers.losses) == set(network.losses)
    (answers.outputs.sum() + sum(loss.sum() for loss in answers.losses.values())).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert samples == 1 or weight.grad.any(), name
    if samples == 4:
        for part in ("speech", "visual"):
            rows[part].values[rows[part].lengths == 0] = 5.0  # of samples without it
        again = network(rows, draws, samples_lesson(samples)).losses
        for name, loss in answers.losses.items():
            torch.testing.assert_close(again[name], loss)
            assert loss.abs().max() > 1e-4


def test_lengths_of_rows_are_no_way_to_lessen_their_difference():
    """Gradients take them for given, as the original's do."""
    x, y = torch.rand(7, 5, requires_grad=True), torch.rand(7, 5)
    difference(x, y).backward()
    centred, other = x - x.mean(0), y - y.mean(0)
    lengths = (x.detach() - x.detach().mean(0)).norm(dim=1, keepdim=True) + 1e-6
    other = other / (other.norm(dim=1, keepdim=True) + 1e-6)
    (wanted,) = torch.autograd.grad(((centred / lengths).T @ other).square().mean(), x)
    torch.testing.assert_close(x.grad, wanted)


def test_a_sample_alone_has_nothing_to_compare():
    x = torch.rand(0, 5, requires_grad=True)
    for loss in (difference(x, x), moment_discrepancy(x, x, 5)):
        assert float(loss.detach()) == 0
    assert np.isclose(float(moment_discrepancy(torch.ones(1, 4), torch.zeros(1, 4), 5)), 2.0)

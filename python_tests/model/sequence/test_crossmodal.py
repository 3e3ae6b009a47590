"""Crossmodal encoders: the original's numbers, and samples that no batch and no padding changes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sequence_networks import (
    NOTHING,
    ORDER,
    WIDTHS,
    a_network,
    an_original,
    assert_alone_as_in_a_batch,
    one_of,
    padded,
    parts_of,
    random_rows,
)

from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.sequence.crossmodal import CrossmodalOptions
from memofast.model.sequence.network import Shape
from memofast.model.sequence.packed_rows import PackedRows
from memofast.model.sequence.rows import Rows
from memofast.sections import checked

SMALL = {"width": 8, "heads": 2, "layers": 2, "kernels": {"text": 3, "speech": 3, "visual": 1}}
LENGTHS = {"text": [4, 0, 1, 0, 6], "visual": [9, 5, 0, 0, 2], "speech": [2, 7, 3, 0, 6]}  # 1 and 2: below a kernel
RNG = torch.tensor([5, 9])


@pytest.mark.real
def test_the_originals_numbers(real_data):
    parts = parts_of(np.load(real_data.parent / "golden" / "companions" / "mmsa_models.npz"), "mult")
    network = an_original("mult", parts, **SMALL)
    rows = {name: padded(parts[f"in/{number}"]) for number, name in enumerate(ORDER)}
    torch.testing.assert_close(network.read(rows, NOTHING), parts["out/Feature_f"], rtol=0, atol=1e-5)
    torch.testing.assert_close(network(rows, NOTHING).outputs, parts["out/M"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("modalities", [("text",), ("visual", "speech"), ("text", "visual", "speech")])
def test_a_sample_is_the_same_alone(causal, modalities):
    shape = Shape({name: WIDTHS[name] for name in modalities}, 2, "single")
    network = a_network("mult", shape, causal=causal, **SMALL)
    lengths = {name: own for name, own in LENGTHS.items() if name in modalities}
    assert_alone_as_in_a_batch(network, random_rows(lengths, longer=2))


def test_padding_counts_with_compat_alone():
    rows = random_rows({"text": [4, 7, 5], "visual": [6, 3, 9], "speech": [5, 4, 3]})
    longer = {name: Rows(F.pad(one.values, (0, 0, 0, 3)), one.lengths) for name, one in rows.items()}
    for compat in (False, True):
        network = a_network("mult", compat=compat, **SMALL)
        with torch.no_grad():
            difference = (network(rows, NOTHING).outputs - network(longer, NOTHING).outputs).abs().max()
        assert (difference > 1e-4) == compat, compat
    whole = random_rows({"text": [5, 5], "visual": [9, 9], "speech": [4, 4]})
    values = [a_network("mult", compat=compat, **SMALL)(whole, NOTHING).outputs for compat in (False, True)]
    torch.testing.assert_close(*values, rtol=0, atol=0)  # without padding they are one


def test_rows_are_convolved_and_short_samples_get_zeros():
    network = a_network("mult", **SMALL)
    rows = random_rows(LENGTHS)
    for name, kernel in SMALL["kernels"].items():
        convolved = network._projected(name, rows[name], NOTHING)
        for sample, length in enumerate(LENGTHS[name]):
            own = one_of(rows, sample)[name].values
            wanted = network.projections[name](F.pad(own, (0, 0, 0, max(0, kernel - own.shape[1]))).mT).mT[0]
            assert convolved.lengths[sample] == (len(wanted) if length else 0)
            if length:
                torch.testing.assert_close(convolved.values[sample, : len(wanted)], wanted)


def test_every_parameter_learns():
    network = a_network("mult", inner_dropout=0.1, residual_dropout=0.1, **SMALL).train()
    network(random_rows({name: [5, 6, 4] for name in WIDTHS}), Draws(RNG, torch.arange(3))).outputs.sum().backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


def test_dropout_is_by_sample_and_update():
    network = a_network("mult", inner_dropout=0.1, residual_dropout=0.1, **SMALL).train()
    keys, rows, order = torch.tensor([31, 7, 5, 9, 11]), random_rows(LENGTHS), [2, 0, 3, 1, 4]
    together = network(rows, Draws(RNG, keys)).outputs
    turned = {name: Rows(one.values[order], one.lengths[order]) for name, one in rows.items()}
    torch.testing.assert_close(network(turned, Draws(RNG, keys[order])).outputs, together[order], rtol=1e-4, atol=1e-5)
    assert (network(rows, Draws(RNG + 1, keys)).outputs - together).abs().max() > 1e-5


def test_packed_rows():
    lengths = torch.tensor([2, 0, 3])
    values = torch.arange(30.0).view(3, 5, 2) + 1
    rows = PackedRows.of(Rows(values, lengths).with_values(values))
    assert rows.offsets.tolist() == [0, 2, 2, 5] and rows.longest == 3
    torch.testing.assert_close(rows.values, torch.cat([values[0, :2], values[2, :3]]))
    torch.testing.assert_close(rows.last(), torch.stack([values[0, 1], torch.zeros(2), values[2, 2]]))
    assert rows.ends().offsets.tolist() == [0, 1, 1, 2] and rows.ends().cells.tolist() == [0, 2]
    draws = (Draws(RNG, torch.tensor([4, 5, 6])) for _ in range(2))
    dropped, mask = rows.dropped(torch.ones(5, 9), 0.5, next(draws)), next(draws).mask((3, 3, 9), 0.5)
    torch.testing.assert_close(dropped, torch.cat([mask[0, :2], mask[2]]))


def test_heads_divide_the_width():
    with pytest.raises(MemofastError, match="width 9 is no multiple of heads 2"):
        checked({"width": 9, "heads": 2}, "recipe", CrossmodalOptions)


def test_keys_are_of_normed_rows():
    encoder = a_network("mult", **SMALL).crossing["text_speech"]
    generator = torch.Generator().manual_seed(8)
    for weight in encoder.parameters():
        weight.data += 0.5 * torch.randn(weight.shape, generator=generator)
    rows = torch.randn(7, 8, generator=generator)
    for layer, found in zip(encoder.layers, encoder._keys(rows), strict=True):
        wanted = layer.qkv(layer.norms[0](rows))[:, 8:].unflatten(1, (2, 2, 4))
        torch.testing.assert_close(found, F.pad(wanted, (0, 4)))


def test_attention_draws_anew_at_every_place():
    draws = Draws(RNG, torch.tensor([4, 5]))
    first, second = draws.of_attention(0.3), draws.of_attention(0.3)
    assert first["site"] != second["site"] and first["p"] == 0.3
    assert draws.of_attention(0.0) == NOTHING.of_attention(0.3) == {}

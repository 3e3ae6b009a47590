"""Late, tensor and low-rank fusion of a vector of each modality: the originals' numbers, samples that no batch
changes, and dropout of products."""

from dataclasses import replace

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
    padded,
    parts_of,
    random_rows,
)

from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.family import Lesson
from memofast.model.fusion.outer_product import OuterProductLayer
from memofast.model.sequence.network import Shape
from memofast.model.sequence.vectors import MeanEncoder

SMALL = {"text_hidden": 8, "text_width": 5, "visual_width": 6, "speech_width": 4}
SIZES = {"lf_dnn": SMALL | {"fusion_width": 6}, "tfn": SMALL | {"fusion_width": 6}, "lmf": SMALL | {"text_width": 4}}
HEADS = {"text_head": 5, "visual_head": 5, "speech_head": 4}
ALONE = {f"m{kind}" if kind != "lf_dnn" else "mlf_dnn": sizes | HEADS for kind, sizes in SIZES.items()}
LENGTHS = {"text": [4, 0, 1, 0, 6], "visual": [9, 5, 0, 0, 2], "speech": [2, 7, 3, 0, 6]}


def golden(real_data, kind):
    return parts_of(np.load(real_data.parent / "golden" / "companions" / "mmsa_models.npz"), kind)


@pytest.mark.real
@pytest.mark.parametrize("kind", SIZES | ALONE)
def test_the_originals_numbers(real_data, kind):
    parts = golden(real_data, kind)
    rows = {name: padded(parts[f"in/{place}"]) for place, name in enumerate(ORDER)}
    for compat in (True, False):  # nothing is padded
        network = an_original(kind, parts, **(SIZES | ALONE)[kind])
        network.encoders._compat = compat
        vectors = network.encoders(rows, NOTHING)
        for name, letter in (("text", "t"), ("visual", "v"), ("speech", "a")):
            torch.testing.assert_close(vectors[name], parts[f"out/Feature_{letter}"], rtol=0, atol=1e-5)
        answers = network(rows, NOTHING)
        torch.testing.assert_close(answers.outputs, parts["out/M"], rtol=0, atol=1e-5)
        for name, values in answers.modalities.items():
            letter = {"text": "T", "visual": "V", "speech": "A"}[name]
            torch.testing.assert_close(values, parts[f"out/{letter}"], rtol=0, atol=1e-5)
    assert len(answers.modalities) == (3 if kind in ALONE else 0)


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("modalities", [("text",), ("visual", "speech"), ("text", "visual", "speech")])
def test_a_sample_is_the_same_alone(kind, modalities):
    network = a_network(kind, Shape({name: WIDTHS[name] for name in modalities}, 2, "single"), **SIZES[kind])
    assert_alone_as_in_a_batch(network, random_rows({name: LENGTHS[name] for name in modalities}, longer=2))


def test_what_a_sample_lacks_says_nothing():
    encoders = a_network("tfn", **SIZES["tfn"]).encoders
    vectors = encoders(random_rows(LENGTHS), NOTHING)
    for name, lengths in LENGTHS.items():
        assert [bool(one.any()) for one in vectors[name]] == [length > 0 for length in lengths]


@pytest.mark.parametrize("kind", ALONE)
def test_losses_of_single_modalities(kind):
    network = a_network(kind, weight=0.6, speech_weight=0.3, **ALONE[kind])
    assert network.losses == {"emotion": 0.6, "text_alone": 1.0, "visual_alone": 1.0, "speech_alone": 0.3}
    rows, unknown = random_rows(LENGTHS), float("nan")
    wanted = {"text": torch.tensor([[1.0], [2], [unknown], [0], [-1]]), "speech": torch.full((5, 1), 0.5)}
    lesson = Lesson(torch.zeros(5, 1), torch.arange(5), wanted, 1, 1, torch.arange(5))
    answers = network(rows, NOTHING, lesson)
    said = answers.modalities
    expected = (said["text"][:, 0] - wanted["text"][:, 0]).abs() * torch.tensor([1, 0, 1, 0, 1.0])
    torch.testing.assert_close(answers.losses["text_alone"], expected.nan_to_num())
    expected = (said["speech"][:, 0] - 0.5).abs() * torch.tensor([1, 1, 1, 0, 1.0])
    torch.testing.assert_close(answers.losses["speech_alone"], expected)
    squared = network(rows, NOTHING, replace(lesson, error=F.mse_loss)).losses["speech_alone"]
    torch.testing.assert_close(squared, expected**2)
    assert not answers.losses["visual_alone"].any()  # of which nothing is known
    sum(one.sum() for one in answers.losses.values()).backward()
    assert network.heads["text"].layers[0].weight.grad.isfinite().all()
    reached = {name: bool(head.layers[0].weight.grad.any()) for name, head in network.heads.items()}
    assert reached == {"text": True, "speech": True, "visual": False}
    assert network(rows, NOTHING).losses == {}
    with pytest.raises(MemofastError, match="learns values of single"):
        a_network(kind, Shape(WIDTHS, 3, "single"), **ALONE[kind])


@pytest.mark.parametrize("kind", SIZES)
def test_padding_counts_with_compat_alone(kind):
    rows = random_rows(LENGTHS)
    longer = {name: padded(F.pad(one.values, (0, 0, 0, 3)), one.lengths) for name, one in rows.items()}
    for compat in (False, True):
        network = a_network(kind, compat=compat, **SIZES[kind])
        difference = (network(rows, NOTHING).outputs - network(longer, NOTHING).outputs).abs().max()
        assert (difference > 1e-4) == compat, compat
    whole = random_rows({name: [3, 3] for name in WIDTHS})
    values = [a_network(kind, compat=compat, **SIZES[kind])(whole, NOTHING).outputs for compat in (False, True)]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("kind", SIZES)
def test_gradients_reach_every_parameter_and_one_sample_learns(kind):
    for lengths in (LENGTHS, {name: own[:1] for name, own in LENGTHS.items()}):
        network = a_network(kind, **SIZES[kind]).train()
        keys = torch.arange(len(lengths["text"]))
        outputs = network(random_rows(lengths), Draws(torch.tensor([3, 1]), keys)).outputs
        outputs.square().sum().backward()
        of_all = {name: parameter.grad is not None for name, parameter in network.named_parameters()}
        assert all(of_all.values()) and outputs.isfinite().all(), of_all
    if kind != "lmf":
        assert {name for name, p in network.named_parameters() if not p.grad.isfinite().all()} == set()


def test_statistics_are_of_samples_that_have_rows():
    encoder = MeanEncoder(7, 6, 0.0).train()
    rows = random_rows(LENGTHS)["visual"]
    encoder(rows, NOTHING)
    means = rows.values.sum(1)[[0, 1, 4]] / torch.tensor([[9.0], [5.0], [2.0]])
    torch.testing.assert_close(encoder.norm.running_mean, 0.1 * means.mean(0))
    before = encoder.norm.running_mean.clone()
    for lengths in ([3], [0, 0], [0, 2]):  # of one sample, or none, there are no statistics
        assert encoder(random_rows({"visual": lengths})["visual"], NOTHING).isfinite().all()
    assert torch.equal(encoder.norm.running_mean, before)


@pytest.mark.parametrize("widths", [(3,), (3, 4), (3, 5, 4)])
def test_the_layer_over_products_is_the_plain_one(widths):
    torch.manual_seed(2)
    layer = OuterProductLayer(widths, 6, 0.5)
    vectors = [torch.randn(2, width, requires_grad=True) for width in widths]
    mask = Draws(torch.tensor([3, 4]), torch.arange(2)).mask((2, int(np.prod(widths))), 0.5)
    outputs = layer(vectors, Draws(torch.tensor([3, 4]), torch.arange(2)))
    own = torch.autograd.grad(outputs.square().sum(), [*vectors, layer.weight, layer.bias])
    product = torch.ones(2, 1)
    for one in vectors:
        product = (product[:, :, None] * one[:, None]).flatten(1)
    plain = F.linear(product * mask, layer.weight, layer.bias)
    torch.testing.assert_close(outputs, plain)
    for one, other in zip(
        own, torch.autograd.grad(plain.square().sum(), [*vectors, layer.weight, layer.bias]), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_values_are_bound_and_classes_are_not():
    rows = random_rows(LENGTHS)
    for kind in ("regression", "single"):
        network = a_network("tfn", Shape(WIDTHS, 1, kind), bound=0.5, **SIZES["tfn"])
        with torch.no_grad():
            network.fusion.output.bias.fill_(50.0)
            assert bool((network(rows, NOTHING).outputs <= 0.5).all()) == (kind == "regression")

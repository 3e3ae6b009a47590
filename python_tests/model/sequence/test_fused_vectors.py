"""A vector of each modality and every fusion of them as a network: samples that no batch changes, what they lack,
losses of the fusion, mistakes in a recipe."""

import pytest
import torch
from sequence_networks import NOTHING, WIDTHS, a_network, assert_alone_as_in_a_batch, random_rows, samples_lesson

from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.fusion.kinds import FUSIONS
from memofast.model.sequence.network import Shape

SMALL = {"text_hidden": 8, "text_width": 8, "visual_width": 8, "speech_width": 6}
LENGTHS = {"text": [4, 0, 1, 0, 6, 0], "visual": [9, 5, 0, 0, 2, 0], "speech": [2, 7, 3, 0, 6, 1]}
OWN = {"fusion_experts": {"experts": [{"kind": "mean"}, {"kind": "low_rank"}]}, "experts": {"active": 2}}
LOSSES = {
    **{kind: {"balance": 0.01} for kind in FUSIONS if kind.endswith("experts")},
    "disentangled": {"alignment": 0.5, "reconstruction": 0.5},
}


def fusing(kind, shape=None, **options):
    sizes = {"heads": 2} if "heads" in FUSIONS[kind][0].model_fields else {}
    return a_network("fused_vectors", shape, fusion={"kind": kind, **sizes, **OWN.get(kind, {})} | options, **SMALL)


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_sample_is_the_same_alone_and_losses_are_the_fusions(kind):
    network = fusing(kind, Shape(WIDTHS, 2, "single"))
    rows = random_rows(LENGTHS, longer=2)
    assert_alone_as_in_a_batch(network, rows)
    answers = network.train()(rows, Draws(torch.tensor([1, 2]), torch.arange(6)), samples_lesson(6))
    assert network.losses == LOSSES.get(kind, {}) and answers.losses.keys() == network.losses.keys()
    assert network(rows, Draws(torch.tensor([1, 2]), torch.arange(6))).losses == {}


def test_what_a_sample_lacks_has_a_vector_of_its_own():
    network, rows = fusing("concat"), random_rows(LENGTHS)
    before = network(rows, NOTHING).outputs
    with torch.no_grad():
        network.fusion.placeholders["visual"].add_(1.0)
    changed = (network(rows, NOTHING).outputs - before)[:, 0].abs() > 1e-5
    assert changed.tolist() == [length == 0 for length in LENGTHS["visual"]]


def test_the_fused_vector_is_dropped():
    network, rows = fusing("low_rank"), random_rows(LENGTHS)
    whole = network(rows, NOTHING).outputs
    dropped = network(rows, Draws(torch.tensor([1, 2]), torch.arange(6))).outputs
    assert ((whole - dropped).abs() > 1e-6).all() and network.dropout == 0.1


def test_mistakes_are_told():
    with pytest.raises(MemofastError, match="cross_attention joins at least 2 modalities, the model reads visual"):
        fusing("cross_attention", Shape({"visual": 7}, 2, "single"))
    with pytest.raises(MemofastError, match="main text of adaptation_gate is not read; set it to one of visual"):
        fusing("adaptation_gate", Shape({"visual": 7, "speech": 5}, 2, "single"))

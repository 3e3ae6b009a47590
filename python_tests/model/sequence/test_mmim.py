"""MMIM: the original's numbers and losses, who learns by which, and the entropies over what was seen before."""

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

from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.sequence.network import Shape
from memofast.model.sequence.seen_features import SeenFeatures

SHAPE = Shape(WIDTHS, 1, "regression", text_encoder=12)
LENGTHS = {"text": [4, 7, 1, 3], "visual": [6, 0, 2, 3], "speech": [2, 9, 0, 3]}
SMALL = {"recurrent_visual": 4, "recurrent_speech": 4, "summary_visual": 8, "summary_speech": 8, "width": 6}
SMALL |= {"faces_and_speech": True}


@pytest.mark.real
def test_the_originals_numbers_and_losses(real_data):
    parts = golden_of(real_data, "mmim")
    network = an_original("mmim", parts, SHAPE, **SMALL)
    rows = {
        "text": padded(parts["hidden"]),
        "visual": padded(parts["in/2"], parts["in/4"]),
        "speech": padded(parts["in/1"], parts["in/3"]),
    }
    lesson = samples_lesson(3, 1, network.learning_state(torch.arange(3)), parts["in/5"])
    with torch.no_grad():
        answers = network(rows, NOTHING, lesson)
    torch.testing.assert_close(answers.outputs, parts["out/M"], rtol=0, atol=1e-5)
    for name in ("estimators", "information"):
        torch.testing.assert_close(-answers.losses[name].mean(), parts["out/lld"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answers.losses["contrast"].mean(), parts["out/nce"], rtol=1e-5, atol=1e-5)
    assert float(answers.losses["entropy"]) == float(parts["out/H"]) == 0


def test_a_sample_is_the_same_alone():
    assert_alone_as_in_a_batch(a_network("mmim", SHAPE, **SMALL), random_rows(LENGTHS, longer=2))
    alone = a_network("mmim", Shape({"text": 12}, 1, "regression", text_encoder=12), width=6)
    assert_alone_as_in_a_batch(alone, random_rows({"text": LENGTHS["text"]}))


def test_compat_differs_where_it_reads_over_the_text():
    plain, aligned = (a_network("mmim", SHAPE, **SMALL, aligned=own, compat=own) for own in (False, True))
    same, other = random_rows({name: [4, 7, 2, 3] for name in WIDTHS}), random_rows(LENGTHS)
    with torch.no_grad():
        torch.testing.assert_close(plain(same, NOTHING).outputs, aligned(same, NOTHING).outputs)
        apart = (plain(other, NOTHING).outputs - aligned(other, NOTHING).outputs).abs()
    assert apart[:3].min() > 1e-6


def test_estimators_and_modalities_learn_by_their_own_losses():
    network = a_network("mmim", SHAPE, **SMALL).train()
    draws, state = Draws(torch.tensor([1, 1]), torch.arange(4)), network.learning_state(torch.arange(4))
    losses = network(random_rows(LENGTHS), draws, samples_lesson(4, 1, state)).losses
    assert set(losses) == set(network.losses) == {"estimators", "information", "contrast", "entropy"}
    assert (network.losses["estimators"], network.losses["information"]) == (1.0, 0.1)
    torch.testing.assert_close(losses["estimators"], losses["information"])
    reached = {}
    for name in ("estimators", "information", "contrast"):
        network.zero_grad()
        losses[name].sum().backward(retain_graph=True)
        reached[name] = {
            own for own, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()
        }
    of_estimators = {name for name, _ in network.named_parameters() if name.startswith("estimators.")}
    others = {name for name, _ in network.named_parameters()} - of_estimators
    assert reached["estimators"] == of_estimators and len(of_estimators) == 3 * 8
    assert reached["information"] == {name for name in others if name.startswith(("encoders.", "summaries."))}
    assert reached["contrast"] == others - {"head.weight", "head.bias"}


def test_losses_are_of_what_samples_have():
    network = a_network("mmim", SHAPE, **SMALL, entropy=0.0).train()
    assert network.learning_state(torch.arange(4)) is None
    losses = network(random_rows(LENGTHS), Draws(torch.tensor([1, 1]), torch.arange(4)), samples_lesson(4)).losses
    with torch.no_grad():
        found = {"text": random_rows(LENGTHS)["text"].values[:, 0]}
        rows = random_rows(LENGTHS)["speech"]
        ends = network.encoders["speech"](rows.values[1:2, :9])[1][0]
        found["speech"] = network.summaries["speech"](ends.transpose(0, 1).flatten(1))
        one = -network.estimators["text_speech"](found["text"][1:2], found["speech"])  # the second has no faces
    torch.testing.assert_close(losses["information"][1:2], one)
    assert "entropy" not in losses


def test_entropies_are_of_this_update_and_those_before():
    """Against numpy, of 40 samples in two updates; with too few samples it is 0."""
    network = a_network("mmim", SHAPE, **SMALL, dropout=0.0).train()
    generator = torch.Generator().manual_seed(3)
    lengths = {name: torch.randint(1, 5, (40,), generator=generator).tolist() for name in WIDTHS}
    rows = random_rows(lengths)
    value = torch.linspace(-3, 3, 40)[torch.randperm(40, generator=generator)][:, None]
    state, halves = network.learning_state(torch.arange(40)), (torch.arange(20), torch.arange(20, 40))
    found = []
    for update, half in enumerate(halves, 1):
        lesson = samples_lesson(20, update, state, value[half])
        lesson.keys = half
        one = {name: type(of)(of.values[half], of.lengths[half]) for name, of in rows.items()}
        found.append(network(one, Draws(torch.tensor([1, 1]), half), lesson).losses["entropy"])
    assert float(found[0]) == 0
    wanted = 0.0
    for name in network.estimators:
        kept = state.get_buffer(f"{name}_features").double().numpy()
        for of in (value[:, 0] > 0, value[:, 0] < 0):
            wanted -= 0.25 * np.linalg.slogdet(np.cov(kept[of.numpy()].T, bias=True))[1]
    assert abs(float(found[1].detach()) - wanted) < 1e-3 * abs(wanted)
    found[1].backward()
    assert network.summaries["speech"].weight.grad.any()
    lesson = samples_lesson(4, 3, state, value[:4])
    four = {name: type(of)(of.values[:4], of.lengths[:4]) for name, of in rows.items()}
    assert float(network(four, Draws(torch.tensor([1, 1]), torch.arange(4)), lesson).losses["entropy"].detach()) != 0
    lesson.update = 9  # nothing was seen shortly before
    assert float(network(four, Draws(torch.tensor([1, 1]), torch.arange(4)), lesson).losses["entropy"].detach()) == 0


def test_a_sample_that_was_seen_before_counts_once():
    state, every = SeenFeatures(torch.tensor([-4, 2, 9]), {"one": 2}), torch.ones(2, dtype=torch.bool)
    places = state.places(torch.tensor([9, -4]))
    assert places.tolist() == [2, 0]
    state.learn(places, torch.tensor([1.0, -2.0]), {"one": (torch.eye(2), every)}, 3)
    cases = ((4, 1, [], [-2.0, 1.0]), (4, 1, [2], [-2.0]), (5, 1, [], []), (5, 2, [0], [1.0]))
    for update, memory, but, wanted in cases:
        features, value = state.since("one", update, memory, torch.tensor(but, dtype=torch.int64))
        assert value.tolist() == wanted and len(features) == len(wanted)
    assert torch.equal(state.since("one", 4, 1, torch.tensor([0]))[0], torch.eye(2)[:1])


def test_classes_are_refused():
    with pytest.raises(MemofastError, match="of which classes have none"):
        a_network("mmim", Shape(WIDTHS, 3, "single", text_encoder=12))

"""Every objective in tensors of fixed shape, as a captured step has them, gives the losses and gradients of without."""

from dataclasses import replace

import pytest
import torch
from packed_batches import random_batch, small_config, with_parts_of_speech

from memofast import objectives
from memofast.cpu import bf16_units
from memofast.data import Capacity
from memofast.data.view import copy_views, padded
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner

KINDS = list(objectives.KINDS)
RNG = torch.tensor([5, 17])
PROMPT = {"template": [110, 103, 111], "words": {"a": 120, "b": 130, "c": 140}}
ONES = {
    "whole_word_mlm": {"at_least_one": True, "emotion_rate": 0.5}, "lare": {"late_supervision": "1/2"},
    "label_prompt": PROMPT, "sentence_prompt": PROMPT | {"position": "before"},
    "emotional_visual_regression": {"neutral": 0}, "emotional_visual_emotion": {"neutral": 7},
}  # fmt: skip
BUILT = objectives.build({**dict.fromkeys(KINDS), **ONES}, small_config(), {"emotions": "nhs", "label": "abc"})
ROOMY = Capacity(53, text=385, visual=510, speech=540, longest=64)


def config(**overrides):
    asked = {name: head for objective in BUILT.values() for name, head in objective.heads.items()}
    published = small_config().every_head
    heads = {name: head.described() for name, head in asked.items() if name not in published}
    tables = {name: entries for objective in BUILT.values() for name, entries in objective.tables.items()}
    return small_config(
        heads=heads, tables=tables, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, **overrides
    )


@pytest.fixture(scope="module")
def learner():
    torch.manual_seed(0)
    model = MemoBertForPreTraining(config())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return Learner(model, BUILT).train()


def batch_of(lengths, seed=0):
    """Every third sample shows the rows of another."""
    batch = with_parts_of_speech(random_batch(config(), lengths, seed=seed, lexicon=True), seed)
    batch.targets["label"] = torch.arange(batch.samples) % 3
    batch.targets["visual_of"] = torch.where(torch.arange(batch.samples) % 3 > 0, batch.sample_keys, 5)
    batch.targets["emotions"] = torch.rand(batch.samples, 3, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    return batch


LARGE = [(9, 12, 13), (4, 11, 9), (7, 2, 16)] * 14
SMALLER = [(6, 9, 11), (5, 14, 3)] * 9


def views_of(name, batch):
    if name is None:
        turn = torch.arange(batch.samples) % len(KINDS)
        return objectives.views_of(batch, BUILT, {kind: turn == number for number, kind in enumerate(KINDS)}, RNG)
    return objectives.views_for(batch, BUILT[name], RNG)


def at(views, capacity=ROOMY):
    return padded(views, *objectives.padding_of(views, BUILT, capacity))


def result(learner, views, dtype=torch.float32):
    learner.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        losses = learner(views, RNG)
    torch.stack([loss.total / max(loss.count, 1) for loss in losses.values()]).sum().backward()
    return losses, {name: parameter.grad.clone() for name, parameter in learner.named_parameters()}


def assert_same(ours, theirs, dtype=torch.float32):
    (losses, gradients), (expected, wanted) = ours, theirs
    assert list(losses) == list(expected)
    loose = dtype is torch.bfloat16
    for name, loss in expected.items():
        assert losses[name].count == loss.count and losses[name].total.dtype == torch.float32
        tolerance = {"rtol": 5e-3, "atol": 5e-3} if loose else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(losses[name].total, loss.total, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
        for metric, value in loss.metrics.items():
            assert loose or losses[name].metrics[metric] == value
    for name, gradient in wanted.items():
        error, scale = (gradients[name] - gradient).norm(), gradient.norm()
        assert error <= (0.05 if loose else 1e-4) * scale + 1e-5, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*KINDS, None])
def test_they_change_nothing(learner, name, dtype):
    if dtype is torch.bfloat16 and name in ("masked_autoencoder", None) and not bf16_units():
        pytest.skip("this CPU multiplies bf16 in software, which takes minutes of these")
    views = views_of(name, batch_of(LARGE))
    exact = result(learner, views, dtype)
    assert all(loss.count > 0 and float(loss.total.detach()) > 0 for loss in exact[0].values())
    assert_same(result(learner, at(views), dtype), exact, dtype)


@pytest.mark.parametrize("name", [*KINDS, None])
def test_what_an_earlier_batch_left_behind_changes_nothing(learner, name):
    placed = at(views_of(name, batch_of(LARGE)))
    views = views_of(name, batch_of(SMALLER, seed=4))
    copy_views(placed, views)
    assert_same(result(learner, placed), result(learner, views))


@pytest.mark.parametrize("name", [*KINDS, None])
def test_a_batch_may_fill_its_capacity_to_the_last_row(name):
    """Then entries without a read name a row that is somebody's."""
    torch.manual_seed(0)
    model = MemoBertForPreTraining(config())
    learner = Learner(model, BUILT).eval()
    views = views_of(name, batch_of(LARGE))
    rows = {modality: int(views[0].batch.offsets_of(modality)[-1]) for modality in ("text", "visual", "speech")}
    exact = Capacity(len(LARGE) + 2, **rows, longest=64)
    capacities, rooms = objectives.padding_of(views, BUILT, exact)
    streams = {name: len(stream.values) for name, stream in views[0].batch.streams.items()}
    full = padded(views, [replace(one, streams=streams) for one in (exact, *capacities[1:])], rooms)
    assert full[0].batch.rows == int(full[0].batch.offsets[-1])
    spare = any(len(read.rows) > read.count for view in full for read in view.reads.values())
    assert spare or name == "masked_autoencoder"  # which reads all there is
    assert_same(result(learner, full), result(learner, views))


@pytest.mark.parametrize("name", [*KINDS, None])
@pytest.mark.parametrize("fixed", [False, True], ids=["exact", "fixed"])
@pytest.mark.parametrize("lengths", [[(2, 0, 0), (1, 0, 0)], [(1, 1, 1), (1, 0, 0)]], ids=["no features", "too few"])
def test_without_samples_every_parameter_has_a_gradient(learner, name, fixed, lengths):
    batch = batch_of(lengths)
    batch.targets.setdefault("soft_labels", torch.zeros(0, 8))
    chosen = dict.fromkeys(KINDS if name is None else [name], torch.zeros(2, dtype=torch.bool))
    views = objectives.views_of(batch, BUILT, chosen, RNG)
    if fixed:
        views = at(views)
    losses, gradients = result(learner, views)
    for loss_name, loss in losses.items():
        assert float(loss.total.detach()) == 0 and loss.count == 0, loss_name
        assert sorted(loss.metrics) == sorted(BUILT[loss_name].metrics) and not any(map(float, loss.metrics.values()))
    assert "objectives.view_contrast.log_scale" in gradients
    for parameter, gradient in gradients.items():
        assert gradient is not None and not gradient.any(), parameter


def test_parameters_of_an_objective_that_is_not_read_have_a_gradient_too(learner):
    views = objectives.views_for(batch_of(LARGE), BUILT["speech_order"], RNG)
    losses, gradients = result(learner, views)
    assert list(losses) == ["speech_order"] and float(gradients["objectives.view_contrast.log_scale"]) == 0
    assert gradients["model.heads.speech_order.classifier.weight"].any()


def test_two_objectives_of_one_kind_share_a_head_and_have_modules_of_their_own():
    two = objectives.build({
        "near": {"kind": "view_contrast", "temperature": 0.1}, "far": {"kind": "view_contrast"},
        "match": {"kind": "matching"}, "faces": {"kind": "matching", "replaced": ["visual"]},
    })  # fmt: skip
    assert two["match"].heads == two["faces"].heads and two["near"].heads == two["far"].heads
    torch.manual_seed(0)
    learner = Learner(MemoBertForPreTraining(config()), two).train()
    scales = {name: float(module.log_scale.detach().exp()) for name, module in learner.objectives.items()}
    assert scales == pytest.approx({"near": 10.0, "far": 20.0})
    batch = batch_of(LARGE[:24])
    part = torch.arange(batch.samples) % 4
    views = objectives.views_of(batch, two, {name: part == number for number, name in enumerate(two)}, RNG)
    assert [list(view.reads) for view in views] == [list(two), ["near"], ["far"]]
    losses, gradients = result(learner, views)
    assert {name: loss.count for name, loss in losses.items()} == dict.fromkeys(two, 6)
    assert all(gradients[f"objectives.{name}.log_scale"].any() for name in ("near", "far"))
    assert gradients["model.heads.matching.weight"].any()
    (alone,) = objectives.views_of(batch, two, {"faces": part == 3}, RNG)
    torch.testing.assert_close(learner([alone], RNG)["faces"].total, losses["faces"].total, rtol=1e-4, atol=1e-4)

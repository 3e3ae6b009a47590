from functools import partial

import pytest
import torch
from runs import tiny_model

from memofast import objectives
from memofast.errors import MemofastError
from memofast.objectives import Learner
from memofast.train.optimisation import adamw, clip, learning_rate, parameter_groups, set_capturable, set_rates
from memofast.train.recipe import Train

PUBLISHED = Train(lr=5e-5, updates=40_000, warmup=4_000)


@pytest.mark.parametrize(
    ("step", "rate"), [(1, 5e-5 / 4000), (4_000, 5e-5), (22_000, 2.5e-5), (39_999, 5e-5 / 36_000), (40_000, 1e-8)]
)
def test_linear_schedule(step, rate):
    assert learning_rate(step, PUBLISHED) == pytest.approx(max(rate, 1e-8))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_rates_around_the_end_of_warmup_and_of_the_run(schedule):
    train = Train(lr=0.5, warmup=4, updates=14, schedule=schedule)
    rates = [learning_rate(step, train) for step in (3, 4, 5, 13, 14)]
    after = [0.5 * 9 / 10, 0.5 * 1 / 10, 1e-8] if schedule == "linear" else [0.5] * 3
    assert rates == pytest.approx([0.5 * 3 / 4, 0.5, *after], rel=1e-9)
    assert learning_rate(1, Train(lr=0.5, warmup=0, updates=3, schedule=schedule)) == pytest.approx(
        0.5 * 2 / 3 if schedule == "linear" else 0.5
    )


def test_constant_schedule():
    train = Train(lr=1.0, warmup=10, schedule="constant", updates=100)
    assert [learning_rate(step, train) for step in (5, 10, 100)] == [0.5, 1.0, 1.0]


def test_warmup_longer_than_the_run():
    train = Train(lr=1.0, warmup=10, updates=10)
    assert learning_rate(10, train) == 1.0


def learner_of(*names):
    return Learner(tiny_model(), objectives.build({name: {} for name in names}))


def named_groups(learner, train):
    """By name and whether it decays: learning rate factor, decay, names of the parameters."""
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    found = {}
    for group in parameter_groups(learner, train):
        key = (group["name"], group["weight_decay"] > 0)
        own = found.setdefault(key, (group["factor"], group["weight_decay"], []))
        assert own[:2] == (group["factor"], group["weight_decay"])
        own[2].extend(names[id(p)] for p in group["params"])
    assert sorted(name for *_, own in found.values() for name in own) == sorted(names.values())
    return found


def test_groups():
    learner = learner_of()
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    decayed, plain = ([names[id(p)] for p in group["params"]] for group in parameter_groups(learner, Train()))
    assert len(decayed) + len(plain) == len(names)
    assert all("norm" in name or name.endswith("bias") for name in plain)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    assert any("word" in name for name in decayed)


def test_unused_parameters_still_decay():
    """A head with zero gradients is stepped: the moments fade and the decoupled decay applies."""
    model = learner_of()
    optimiser = adamw(model, Train(lr=0.1, weight_decay=0.5))
    weight = model.model.memobert.pooler.weight
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.1 * 0.5))


GROUPS = {
    "memobert.embeddings.word.*": {"lr": 0.1},
    "memobert.embeddings.*": {"lr": 0.5, "weight_decay": 0.2},
    "heads.visual*": {"weight_decay": 0.0},
}


def test_named_groups_have_a_rate_and_a_decay_of_their_own():
    """The first pattern that fits counts; biases and norms never decay."""
    found = named_groups(learner_of("view_contrast"), Train(weight_decay=0.03, groups=GROUPS))
    words, embeddings, heads = GROUPS
    assert {key: values[:2] for key, values in found.items()} == {
        ("", True): (1.0, 0.03), ("", False): (1.0, 0.0), (words, True): (0.1, 0.03), (embeddings, True): (0.5, 0.2),
        (embeddings, False): (0.5, 0.0), (heads, False): (1.0, 0.0), ("objectives", False): (1.0, 0.0),
    }  # fmt: skip
    assert found[words, True][2] == ["model.memobert.embeddings.word.weight"]
    assert "model.memobert.embeddings.speech.mask" in found[embeddings, True][2]
    assert "model.memobert.embeddings.norm.weight" in found[embeddings, False][2]
    assert len(found[heads, False][2]) == 11 and all("heads.visual" in name for name in found[heads, False][2])
    assert found["objectives", False][2] == ["objectives.view_contrast.log_scale"]


def test_a_group_of_objectives_never_decays():
    train = Train(weight_decay=0.3, groups={"objectives.*": {"lr": 3.0}})
    factor, decay, names = named_groups(learner_of("view_contrast"), train)["objectives.*", False]
    assert (factor, decay, names) == (3.0, 0.0, ["objectives.view_contrast.log_scale"])


@pytest.mark.parametrize("pattern", ["objectives.*", "*.bias", "*norm.weight"])
def test_a_decay_that_would_do_nothing_is_refused(pattern):
    with pytest.raises(MemofastError, match=r"weight_decay 0\.1 would do nothing"):
        adamw(learner_of("view_contrast"), Train(groups={pattern: {"weight_decay": 0.1}}))


def test_a_pattern_whose_parameters_others_have_is_told_apart():
    groups = {"heads.*": {}, "heads.words.*": {"lr": 2.0}}
    with pytest.raises(MemofastError, match=r"groups\.heads\.words\.\*: patterns before it fit all its parameters"):
        adamw(learner_of(), Train(groups=groups))


def test_a_pattern_that_no_parameter_has_is_named():
    for pattern in ("memobert.embedding.*", "model.memobert.pooler.*", "Heads.*"):
        with pytest.raises(MemofastError) as error:
            adamw(learner_of(), Train(groups={"heads.*": {}, pattern: {"lr": 2.0}}))
        assert str(error.value).startswith(f"train.groups.{pattern}: no parameter") and "\n" not in str(error.value)


def test_a_group_steps_by_its_rate():
    """The first step of Adam moves each weight by the rate, decay aside."""
    learner = learner_of()
    optimiser = adamw(learner, Train(weight_decay=0.5, groups=GROUPS))
    before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
    for parameter in learner.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rates(optimiser, lambda _: 0.02)
    optimiser.step()
    decays = {
        "memobert.embeddings.word.weight": (0.002, 0.5), "memobert.embeddings.position.weight": (0.01, 0.2),
        "memobert.embeddings.norm.bias": (0.01, 0.0), "memobert.pooler.weight": (0.02, 0.5),
        "heads.visual_emotions.classifier.weight": (0.02, 0.0), "heads.speech_features.bias": (0.02, 0.0),
    }  # fmt: skip
    after = dict(learner.model.named_parameters())
    for name, (rate, decay) in decays.items():
        wanted = before[f"model.{name}"] * (1 - rate * decay) - rate
        torch.testing.assert_close(after[name].detach(), wanted, rtol=1e-4, atol=1e-6)


def test_rates_keep_their_factors_through_tensors_and_checkpoints():
    optimiser = adamw(learner_of(), Train(groups=GROUPS))
    wanted = {"": 3e-3, "memobert.embeddings.word.*": 3e-4, "memobert.embeddings.*": 1.5e-3, "heads.visual*": 3e-3}
    set_rates(optimiser, lambda _: 7.0)
    set_capturable(optimiser, torch.device("cpu"))
    set_rates(optimiser, lambda _: 3e-3)
    assert all(isinstance(group["lr"], torch.Tensor) for group in optimiser.param_groups)
    assert [float(group["lr"]) for group in optimiser.param_groups] == pytest.approx(
        [wanted[group["name"]] for group in optimiser.param_groups]
    )
    restored = adamw(learner_of(), Train(groups=GROUPS))
    set_rates(restored, lambda _: 1.0)
    restored.load_state_dict(optimiser.state_dict())
    set_capturable(restored, None)
    set_rates(restored, lambda _: 2 * 3e-3)
    assert [group["lr"] for group in restored.param_groups] == pytest.approx(
        [2 * wanted[group["name"]] for group in restored.param_groups]
    )


def test_a_group_rises_over_a_warmup_of_its_own():
    word, rest = "memobert.embeddings.word.*", ""
    train = Train(lr=0.8, warmup=10, updates=110, groups={word: {"lr": 3, "warmup": 4}})
    optimiser = adamw(learner_of(), train)
    rates = {}
    for step in (2, 4, 10, 57):
        set_rates(optimiser, partial(learning_rate, step, train))
        rates[step] = {group["name"]: group["lr"] for group in optimiser.param_groups}
    assert [rates[step][rest] for step in (2, 4, 10)] == pytest.approx([0.16, 0.32, 0.8])
    assert [rates[step][word] for step in (2, 4)] == pytest.approx([1.2, 2.4])
    assert rates[57][word] == pytest.approx(2.4 * 53 / 106) and rates[57][rest] == pytest.approx(0.8 * 53 / 100)


def test_gradients_of_a_group_may_be_spared_from_clipping():
    """Neither are they scaled, nor do they count for what the others are scaled by; the norm told is that of all."""
    learner = learner_of()
    optimiser = adamw(learner, Train(groups={"memobert.embeddings.word.*": {"clip": False}}))
    for parameter in learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    spared, other = (learner.model.memobert.embeddings.word.weight, learner.model.memobert.pooler.weight)
    spared.grad[0, 0], other.grad[0, 0], other.grad[1, 1] = 40.0, 6.0, -8.0
    norm = clip(learner, 5.0, optimiser)
    assert float(norm) == pytest.approx((40**2 + 10**2) ** 0.5)
    assert float(spared.grad[0, 0]) == 40.0
    assert [float(other.grad[0, 0]), float(other.grad[1, 1])] == pytest.approx([3.0, -4.0], rel=1e-5)


def test_looking_first_clips_the_same():
    """Norms above, below and just at the bound."""
    for largest in (2.0, 5.0, 5.5):
        found = []
        for waits in (False, True):
            layer = torch.nn.Linear(2, 1, bias=False)
            layer.weight.grad = torch.tensor([[3.0, 4.0]])
            norm = clip(layer, largest, waits=waits)
            found.append(layer.weight.grad)
            assert float(norm) == 5.0
        assert torch.equal(*found)
        assert torch.allclose(found[0].norm(), torch.tensor(min(largest, 5.0)), rtol=1e-5)

import pytest
import torch
from runs import tiny_model

from memofast.train.optimisation import adamw, learning_rate, parameter_groups
from memofast.train.recipe import Train

PUBLISHED = Train(lr=5e-5, updates=40_000, warmup=4_000)


@pytest.mark.parametrize(
    ("step", "rate"), [(1, 5e-5 / 4000), (4_000, 5e-5), (22_000, 2.5e-5), (39_999, 5e-5 / 36_000), (40_000, 1e-8)]
)
def test_linear_schedule(step, rate):
    assert learning_rate(step, PUBLISHED) == pytest.approx(max(rate, 1e-8))


def test_constant_schedule():
    train = Train(lr=1.0, warmup=10, schedule="constant", updates=100)
    assert [learning_rate(step, train) for step in (5, 10, 100)] == [0.5, 1.0, 1.0]


def test_warmup_longer_than_the_run():
    train = Train(lr=1.0, warmup=10, updates=10)
    assert learning_rate(10, train) == 1.0


def test_groups():
    model = tiny_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = ([names[id(p)] for p in group["params"]] for group in parameter_groups(model, 0.01))
    assert len(decayed) + len(plain) == len(names)
    assert all("norm" in name or name.endswith("bias") for name in plain)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    assert any("word" in name for name in decayed)


def test_unused_parameters_still_decay():
    """A head with zero gradients is stepped: the moments fade and the decoupled decay applies."""
    model = tiny_model()
    optimiser = adamw(model, Train(lr=0.1, weight_decay=0.5))
    weight = model.memobert.pooler.weight
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.1 * 0.5))

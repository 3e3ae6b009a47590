"""A step in tensors of fixed shape, as CUDA graphs replay it, against the exact one; on a CPU."""

from functools import partial

import torch

from memofast.train import optimisation
from memofast.train.captured_step import Places
from memofast.train.step import Step


def gradients(learner, run):
    """The loss of a backward pass, the sums it is made of, and what it leaves in every parameter that it reaches."""
    learner.zero_grad()
    total, losses = run()
    assert total.dtype == torch.float32
    sums = {name: [loss.total.detach(), *loss.metrics.values()] for name, loss in losses.items()}
    grads = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    return total, sums, grads


# relative, absolute, and of a gradient's largest value: bf16 itself differs by up to .02 of that from fp32, and views
# in one pass are rounded once where views apart are rounded each
CLOSE = {"fp32": (1e-4, 1e-6, 2e-5), "bf16": (2e-2, 2e-3, 1.5e-2)}


def check_replays(task, batches, precision, kinds):
    """Forward and backward in tensors of fixed shape that earlier batches have filled, as a graph replays them, against
    the exact step.

    Args: batches: views and update of each; kinds: how many sets of tensors they need.
    """
    cpu, learner = torch.device("cpu"), task.learner().train()
    step = Step(learner, optimisation.adamw(learner, task.options), 1.0, precision, cpu)
    places, seen = Places(task.capacity, task.objectives, cpu), 0
    for views, number in batches:
        factors = {name: 1 / max(count, 1) for name, count in views[0].counts.items()}
        rng, shape = torch.tensor([1, number]), places.take(views, True)
        shape.weights.copy_(torch.tensor(list(factors.values())))
        wanted = gradients(learner, partial(step.add_gradients, views, factors, rng, True))
        found = gradients(learner, partial(step._backward, shape.views, shape.weights, rng, True))
        assert not wanted[2].keys() ^ found[2].keys()
        _check_close(found, wanted, *CLOSE[precision])
        seen += any(view.batch.samples < own.batch.samples for view, own in zip(views, shape.views, strict=True))
    assert len(places.shapes) == kinds
    assert seen, "no batch was padded with samples"


def _check_close(found, wanted, relative, absolute, of_largest):
    """Sums of loss alike in each number; gradients too, but for rounding, which follows a tensor's largest values."""
    torch.testing.assert_close(found[:2], wanted[:2], rtol=relative, atol=absolute)
    for name, gradient in wanted[2].items():
        around = max(absolute, of_largest * float(gradient.abs().max()))
        torch.testing.assert_close(
            found[2][name], gradient, rtol=relative, atol=around, msg=lambda m, n=name: f"{n}: {m}"
        )

"""LayerNorm(residual + dropout(x + bias)), forward and backward, against eager PyTorch.

Rules: 32 samples of text 5-30, visual 4-64 and speech 10-64 rows, packed, 768 channels, dropout 0.1; two threads. Eager: x + bias,
F.dropout (PyTorch's own generator), add, F.layer_norm, autograd, everything in the compute type (the bias is stored in it; gamma and
beta are fp32 for both). Gradients of x, residual, gamma, beta and bias; the gradient that arrives is given. Leaves' old gradients are
dropped before each call. `gigabytes` counts each tensor once per pass: 3 of [N, C] forward, 5 backward.
"""

import pytest
import torch
import torch.nn.functional as F
from plain_ops import Nothing

from memofast.ops import dropout_add_norm

WIDTH, P = 768, 0.1


def inputs(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = sum(
        torch.randint(low, high + 1, (32,), generator=generator) for low, high in ((5, 30), (4, 64), (10, 64))
    )
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))).to(torch.int32)
    x, residual, grad = torch.randn(3, int(offsets[-1]), WIDTH, generator=generator).to(dtype).unbind()
    gamma, beta, bias = torch.randn(3, WIDTH, generator=generator).unbind()
    leaves = [t.clone().requires_grad_() for t in (x, residual, gamma, beta, bias.to(dtype))]
    keys = torch.randint(0, 2**62, (32,), generator=generator)
    return leaves, grad, {"offsets": offsets, "sample_keys": keys, "rng": torch.tensor([1, 2]), "p": P}


def eager(x, residual, gamma, beta, bias):
    z = residual + F.dropout(x + bias, P)
    return F.layer_norm(z, (WIDTH,), gamma, beta, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_dropout_add_norm(side_by_side, dtype):
    leaves, grad, options = inputs(dtype)

    def step(function):
        for leaf in leaves:
            leaf.grad = None
        function().backward(grad)

    def ours():
        x, residual, gamma, beta, bias = leaves
        return dropout_add_norm(x, residual, gamma, beta, bias=bias, **options)

    side_by_side(
        lambda: step(ours),
        rivals={"eager": lambda: step(lambda: eager(*leaves))},
        target={"eager": 1.5},
        rows=grad.shape[0],
        width=WIDTH,
        gigabytes=8 * grad.numel() * grad.element_size() / 1e9,
    )


def test_call_of_dropout_add_norm(side_by_side):
    """One row of 16 channels, forward with gradients: all is overhead."""
    x, residual = (torch.zeros(1, 16, requires_grad=True) for _ in range(2))
    gamma, beta, bias = (torch.zeros(16, requires_grad=True) for _ in range(3))
    options = {"rng": torch.tensor([1, 2]), "sample_keys": torch.tensor([3]), "offsets": torch.tensor([0, 1]).int()}
    operands = (x, residual, gamma, beta, bias, *options.values())
    side_by_side(
        lambda: dropout_add_norm(x, residual, gamma, beta, bias=bias, p=P, **options),
        {"empty Function": lambda: Nothing.apply(0, *operands)},
    )

"""GELU(x + bias), forward and backward, against eager PyTorch.

Rules: as many rows as a packed batch of 32 MEmoBERT-like samples (2,800), 3,072 channels; two threads. Eager: F.gelu(x + bias) with
autograd in the compute type, the bias stored in it. Gradients of x and bias; the gradient that arrives is given. Leaves' old
gradients are dropped before each call. `gigabytes` counts each tensor once per pass: 2 of [N, C] forward, 3 backward.
"""

import pytest
import torch
import torch.nn.functional as F
from plain_ops import Nothing

from memofast.ops import bias_gelu

ROWS, WIDTH = 2800, 3072


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_bias_gelu(side_by_side, dtype):
    generator = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, ROWS, WIDTH, generator=generator).to(dtype).unbind()
    bias = torch.randn(WIDTH, generator=generator).to(dtype).requires_grad_()
    x = x.clone().requires_grad_()

    def step(function):
        x.grad = bias.grad = None
        function(x, bias).backward(grad)

    side_by_side(
        lambda: step(bias_gelu),
        rivals={"eager": lambda: step(lambda x, bias: F.gelu(x + bias))},
        target={"eager": 1.5},
        rows=ROWS,
        width=WIDTH,
        gigabytes=5 * grad.numel() * grad.element_size() / 1e9,
    )


def test_call_of_bias_gelu(side_by_side):
    """One row of 16 channels, forward with gradients: all is overhead."""
    x, bias = torch.zeros(1, 16, requires_grad=True), torch.zeros(16, requires_grad=True)
    side_by_side(lambda: bias_gelu(x, bias), {"empty Function": lambda: Nothing.apply(0, x, bias)})

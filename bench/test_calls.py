"""What a call of an operator costs beside its work: the smallest operands, forward, with gradients recorded and
without.

Rules: `body` allocates the results and calls the kernel on operands that were checked before; whatever a public
function needs beyond it is what choosing the backend, checking operands and, with gradients, PyTorch's
`autograd.Function` cost. `empty Function` is the last of these alone: it keeps the same operands and allocates one
result. `custom_op` is the same body behind `torch.library.custom_op` with `register_autograd`. At most 3 us above the
body are aimed at without gradients, and 10 us with them.
"""

import sys
from unittest import mock

import pytest
import torch
from plain_ops import Nothing

from memofast import ops
from memofast.ops import FeatureRows, TextRows

AT_MOST_US = {"plain": 3, "gradients": 10}
OFFSETS, KEYS, RNG = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([3]), torch.tensor([1, 2])
DROPOUT = {"p": 0.1, "rng": RNG, "sample_keys": KEYS}


def leaf(*shape):
    return torch.zeros(shape, requires_grad=True)


def attention():
    qkv = leaf(1, 3, 1, 8)
    return lambda: ops.attention(qkv, OFFSETS, **DROPOUT)


def bias_gelu():
    x, bias = leaf(1, 16), leaf(16)
    return lambda: ops.bias_gelu(x, bias)


def dropout_add_norm():
    operands, bias = [leaf(1, 16), leaf(1, 16), leaf(16), leaf(16)], leaf(16)
    return lambda: ops.dropout_add_norm(*operands, bias=bias, offsets=OFFSETS, **DROPOUT)


def embed():
    index = torch.zeros(1, dtype=torch.int32)
    text = TextRows(index, OFFSETS, leaf(2, 16), leaf(2, 16), leaf(16), leaf(16))
    visual, speech = (
        FeatureRows(leaf(1, 16), index, OFFSETS, leaf(16), leaf(2, 16), *(leaf(16) for _ in range(4))) for _ in range(2)
    )
    types, joint = leaf(3, 16), torch.tensor([0, 3], dtype=torch.int32)
    return lambda: ops.embed(text, types, joint, visual=visual, speech=speech, **DROPOUT)


def body_of(operator, call):
    """What the public function ran, and on which operands."""
    module = sys.modules[f"memofast.ops.{operator}"]
    forward = module._forward
    with mock.patch.object(module, "_forward", side_effect=forward) as run:
        call()
    arguments = run.call_args.args
    return lambda: forward(*arguments), [a for a in arguments if a is None or isinstance(a, torch.Tensor)]


def custom_bias_gelu():
    module = sys.modules["memofast.ops.bias_gelu"]

    @torch.library.custom_op("memofast_bench::bias_gelu", mutates_args=())
    def operator(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return module._forward(x, bias, "cpu")

    operator.register_autograd(
        lambda ctx, grad: module._backward(grad, *ctx.saved_tensors, "cpu"),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    x, bias = leaf(1, 16), leaf(16)
    return lambda: operator(x, bias)


@pytest.mark.parametrize("gradients", AT_MOST_US)
@pytest.mark.parametrize("operator", [attention, bias_gelu, dropout_add_norm, embed], ids=lambda f: f.__name__)
def test_call(side_by_side, benchmark, operator, gradients):
    call = operator()
    body, operands = body_of(operator.__name__, call)
    rivals = {"body": body}
    if operator is bias_gelu:
        rivals["custom_op"] = custom_bias_gelu()
    with torch.set_grad_enabled(gradients == "gradients"):
        if gradients == "gradients":
            rivals["empty Function"] = lambda: Nothing.apply(*operands)
        side_by_side(call, rivals, at_most_us=AT_MOST_US[gradients])

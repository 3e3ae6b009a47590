"""Every operator runs on the device of its tensors, whichever is the current one."""

from functools import partial

import embed_cases
import pytest
import test_attention as attention_cases
import test_bias_gelu as gelu_cases
import test_cross_attention as cross_cases
import test_dropout_add_norm as norm_cases
import test_separable_attention as grid_cases
import test_span_mask as span_cases
import test_token_mask as token_cases
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from memofast import _C
from memofast.ops import (
    SpanPolicy,
    TokenPolicy,
    attention,
    bias_gelu,
    cross_attention,
    dropout_add_norm,
    embed,
    separable_attention,
    span_mask,
    token_mask,
)


def spans():
    offsets, keys = span_cases.batch([5, 17])
    return (offsets, keys, span_cases.rng(), SpanPolicy()), {"rows": 25, "site": 5, "capacity": 64}


def words():
    return (), token_cases.batch([5, 17]) | {
        "rng": token_cases.rng(),
        "policy": TokenPolicy(),
        "site": 5,
        "capacity": 64,
    }


def packed(*operands_and_options):
    *operands, options = operands_and_options
    return operands, options | {"p": 0.1}


# By operator: what runs it, forth and back where it has a gradient, its operands and options.
CASES = {
    "attention": (partial(attention_cases.run, attention), *packed(*attention_cases.batch([5, 17]))),
    "cross_attention": (partial(cross_cases.run, cross_attention), *packed(*cross_cases.batch([(5, 17)]))),
    "embed": (partial(embed_cases.run, embed), (embed_cases.operands([(5, 3, 4)]),), {"p": 0.1}),
    "dropout_add_norm": (partial(norm_cases.run, dropout_add_norm), *packed(*norm_cases.batch(40, [5, 17]))),
    "bias_gelu": (partial(gelu_cases.run, bias_gelu), gelu_cases.batch(9, 40), {}),
    "separable_attention": (
        partial(grid_cases.run, separable_attention),
        *packed(*grid_cases.batch(9, 48, (2, 4, 3), 2)),
    ),
    "span_mask": (span_mask, *spans()),
    "token_mask": (token_mask, *words()),
}


def results(name, device, **options):
    """All tensors that an operator gives for operands on a device."""
    run, operands, own = CASES[name]
    operands, own = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), (operands, own))
    return tree_leaves(run(*operands, **own, **options))


@pytest.mark.gpu
@pytest.mark.skipif(not _C.cuda_version, reason="built without CUDA kernels")
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("name", CASES)
def test_another_gpu_is_current(name):
    with torch.cuda.device(0):
        expected = results(name, "cuda:0", backend="cuda")
        got = results(name, "cuda:1", backend="cuda")
        torch.cuda.synchronize(1)
        assert torch.cuda.current_device() == 0
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.device == torch.device("cuda", 1)
        torch.testing.assert_close(mine.cpu(), theirs.cpu())

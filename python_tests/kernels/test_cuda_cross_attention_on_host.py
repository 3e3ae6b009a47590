"""The CUDA kernels of attention, of queries with rows of their own, run by the host against the operator's
reference."""

import pytest
import torch
from test_cross_attention import ODD, batch, compare, run, self_batch

from memofast.ops.attention import attention, cross_attention


def on_cuda(*operands, **options):
    return cross_attention(*operands, backend="cuda", **options)


@pytest.mark.parametrize(
    ("p", "heads", "width", "dtype"),
    [
        (0.0, 1, 64, torch.float32),
        (0.1, 2, 64, torch.bfloat16),
        (0.1, 2, 64, torch.float16),
        *((0.1, 1, 32, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
        (0.1, 1, 96, torch.bfloat16),
        (0.1, 1, 128, torch.float32),
        (0.1, 1, 128, torch.float16),
    ],
)
def test_matches_reference(cuda_on_host, poisoned_memory, heads, width, p, dtype):
    q, kv, grad, options = batch(ODD, heads, width, dtype, spare=3)
    got = cuda_on_host(compare, on_cuda, q, kv, grad, p=p, **options)
    assert not any(x[-3:].any() for x in got)


@pytest.mark.parametrize("longest", [1, 33, 64, 160, 300])
def test_any_length_under_any_bound(cuda_on_host, poisoned_memory, longest):
    """A wrong bound costs time only: queries or keys beyond the rows on chip are read in chunks, with the same bits."""
    q, kv, grad, options = batch([(70, 5), (20, 300), (300, 20), (0, 70), (5, 0)], 1, dtype=torch.bfloat16, spare=3)
    got = cuda_on_host(compare, on_cuda, q, kv, grad, p=0.1, longest=longest, **options)
    if longest >= 64:
        again = run(on_cuda, q, kv, grad, p=0.1, **options)
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_the_same_rows_is_attention(cuda_on_host, poisoned_memory, dtype):
    qkv, grad, options = self_batch([7, 0, 33, 130, 1], dtype=dtype, spare=2)
    leaf = qkv.clone().requires_grad_()
    expected = attention(leaf, p=0.2, backend="cuda", **options)
    (expected_grad,) = torch.autograd.grad(expected, leaf, grad)
    parts = qkv[:, 0].contiguous(), qkv[:, 1:].contiguous()
    out, grad_q, grad_kv = cuda_on_host(
        run, on_cuda, *parts, grad, p=0.2, query_offsets=options["offsets"], **options
    )  # fmt: skip
    assert torch.equal(out, expected)
    assert torch.equal(torch.cat((grad_q[:, None], grad_kv), 1), expected_grad)


@pytest.mark.parametrize("lengths", [[], [(0, 0)], [(4, 0), (2, 0)], [(0, 4), (0, 0)]])
def test_empty(cuda_on_host, poisoned_memory, lengths):
    for spare in (0, 3):
        q, kv, grad, options = batch(lengths, spare=spare)
        assert not any(x.any() for x in cuda_on_host(run, on_cuda, q, kv, grad, p=0.1, **options))

"""The CUDA kernels of attention, run by the host, against the operator's reference."""

import pytest
import test_attention as cases
import torch
from error_rule import assert_within_rule
from test_attention import batch, run

from memofast.ops.attention import attention
from memofast.ops.attention_reference import attention_keep_mask, attention_reference

TYPES = [torch.float32, torch.bfloat16, torch.float16]


def check(cuda_on_host, qkv, grad, **options):
    """Within the rule, the same bits in either order of threads, zero in the last three rows."""
    got = cuda_on_host(run, attention, qkv, grad, backend="cuda", **options)
    options.pop("longest", None)
    plain = run(attention_reference, qkv, grad, **options)
    exact = run(attention_reference, qkv.double(), grad, **options)
    assert got[0].dtype == got[1].dtype == qkv.dtype
    assert_within_rule(got, plain, exact)
    assert not got[0][-3:].any() and not got[1][-3:].any()
    return got


@pytest.mark.parametrize(
    ("heads", "width", "p", "dtype"),
    [
        (1, 64, 0.1, torch.float32),
        (2, 64, 0.1, torch.bfloat16),
        (2, 64, 0.1, torch.float16),
        *((1, 32, 0.1, dtype) for dtype in TYPES),
        (1, 64, 0.0, torch.float16),
        (1, 96, 0.0, torch.float32),
        (1, 128, 0.1, torch.bfloat16),
        (1, 128, 0.1, torch.float16),
    ],
)
def test_matches_reference(cuda_on_host, poisoned_memory, heads, width, p, dtype):
    qkv, grad, options = batch(cases.ODD, heads, width, dtype, spare=3)
    check(cuda_on_host, qkv, grad, p=p, **options)


@pytest.mark.parametrize(
    ("longest", "dtype"),
    [(1, torch.float32), (64, torch.bfloat16), (160, torch.float16), (1000, torch.bfloat16)],
)
def test_any_length_under_any_bound(cuda_on_host, poisoned_memory, longest, dtype):
    """A wrong bound costs time only. Sequences beyond the rows on chip are read in chunks, with the same bits."""
    qkv, grad, options = batch([70, 300, 0, 5], 1, dtype=dtype, spare=3)
    got = check(cuda_on_host, qkv, grad, p=0.1, longest=longest, **options)
    if longest >= 64:
        assert all(
            torch.equal(a, b)
            for a, b in zip(got, run(attention, qkv, grad, p=0.1, backend="cuda", **options), strict=True)
        )


@pytest.mark.parametrize(("kib", "width"), [(99, 64), (163, 128), (48, 64)])
def test_less_shared_memory(cuda_on_host, poisoned_memory, monkeypatch, kib, width):
    monkeypatch.setenv("MEMOFAST_SHARED_BYTES", str(kib * 1024))
    qkv, grad, options = batch([150, 17], 1, width, spare=3)
    check(cuda_on_host, qkv, grad, p=0.1, **options)


def test_padded_equals_packed(cuda_on_host, poisoned_memory):
    lengths, longest = [7, 0, 33, 20], 40
    qkv, grad, options = batch(lengths, spare=3)
    packed = check(cuda_on_host, qkv, grad, p=0.2, **options)
    rows = torch.cat([torch.arange(n) + b * longest for b, n in enumerate(lengths)])
    spread = [t.new_full((4 * longest + 3, *t.shape[1:]), float("nan")) for t in (qkv, grad)]
    for padded, tensor in zip(spread, (qkv, grad), strict=True):
        padded[rows] = tensor[:-3]
    options["offsets"] = torch.arange(0, 4 * longest + 1, longest, dtype=torch.int32)
    options["lengths"] = torch.tensor(lengths, dtype=torch.int32)
    for wanted, got in zip(
        packed, cuda_on_host(run, attention, *spread, p=0.2, backend="cuda", **options), strict=True
    ):
        assert torch.equal(got[rows], wanted[:-3])
        got[rows] = 0
        assert not got.any()


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0], [1]])
def test_empty(cuda_on_host, poisoned_memory, lengths):
    for spare in (0, 3):
        qkv, grad, options = batch(lengths, spare=spare)
        out, grad_qkv = cuda_on_host(run, attention, qkv, grad, p=0.1, backend="cuda", **options)
        assert not out[sum(lengths) :].any() and not grad_qkv[sum(lengths) :].any()
        assert out.isfinite().all() and grad_qkv.isfinite().all()


def test_a_sequence_does_not_depend_on_its_batch(cuda_on_host, poisoned_memory):
    qkv, grad, options = batch([40, 100, 17], dtype=torch.bfloat16)
    whole = run(attention, qkv, grad, p=0.1, backend="cuda", **options)
    options |= {"offsets": torch.tensor([0, 100], dtype=torch.int32), "sample_keys": options["sample_keys"][1:2]}
    alone = run(attention, qkv[40:140].clone(), grad[40:140].clone(), p=0.1, backend="cuda", **options)
    assert all(torch.equal(a[40:140], b) for a, b in zip(whole, alone, strict=True))


@pytest.mark.parametrize("scale", [-0.3, 0.0, 0.3])
def test_scale(cuda_on_host, scale):
    qkv, grad, options = batch([9, 70], spare=3)
    check(cuda_on_host, qkv, grad, p=0.1, scale=scale, **options)


def test_large_scores_stay_finite(cuda_on_host):
    qkv, grad, options = batch([50])
    got = run(attention, qkv * 20, grad, backend="cuda", **options)
    exact = run(attention_reference, qkv.double() * 20, grad, **options)
    for mine, truth in zip(got, exact, strict=True):
        torch.testing.assert_close(mine.double(), truth, atol=1e-3 * truth.abs().max().item(), rtol=0)


def test_values_that_are_not_finite_show(cuda_on_host):
    """A GPU's own NaN has all bits of its fraction set, which rounding by addition would turn into a zero."""
    own_nan = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    for place, value in [(0, own_nan), (1, own_nan), (2, own_nan), (2, torch.inf), (2, -torch.inf)]:
        qkv, grad, options = batch([40], heads=1)
        qkv[20, place] = value
        out, grad_qkv = run(attention, qkv, grad, backend="cuda", **options)
        assert not out[20].isfinite().any() and not grad_qkv[20].isfinite().all(), place
    qkv, grad, options = batch([40], heads=1)
    grad[20] = own_nan
    assert not run(attention, qkv, grad, backend="cuda", **options)[1].isfinite().all()


def test_dropout_follows_the_mask(cuda_on_host):
    """With equal scores and one-hot values the output is the keep mask itself."""
    length, p = 32, 0.3
    qkv = torch.zeros(length, 3, 2, 32)
    qkv[:, 2] = torch.eye(length)[:, None]
    _, _, options = batch([length])
    out = attention(qkv, p=p, backend="cuda", **options)
    keep = attention_keep_mask(options["rng"], cases.SITE, options["sample_keys"], 2, length, p)[0]
    torch.testing.assert_close(out.transpose(0, 1), keep / 0.7 / length, rtol=1e-4, atol=0)


def test_refusals(cuda_on_host):
    qkv, _, options = batch([4], width=40)
    with pytest.raises(ValueError, match="not covered"):
        attention(qkv, backend="cuda", **options)
    qkv, _, options = batch([4])
    shifted = torch.empty(qkv.numel() + 1)[1:].view_as(qkv)
    with pytest.raises(ValueError, match="not aligned"):
        attention(shifted, backend="cuda", **options)

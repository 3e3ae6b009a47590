"""attention in Triton against the reference: on a GPU, or by Triton's interpreter on the CPU (TRITON_INTERPRET=1)."""

import os
import subprocess
import sys

import pytest
import test_cross_attention as cross_cases
import torch
from error_rule import assert_within_rule

from memofast.ops import philox
from memofast.ops.attention import attention
from memofast.ops.attention_reference import attention_keep_mask, attention_reference

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_device = pytest.mark.interpreted if INTERPRETED else pytest.mark.gpu
TYPES = [torch.float32, torch.bfloat16, torch.float16]
# the interpreter takes time by the pair of blocks, of 32 rows or of 64
ODD = [1, 15, 17, 0, 65, 0] if INTERPRETED else [1, 15, 16, 17, 33, 63, 100, 0, 129, 160, 0]
SITE = philox.site(2, philox.Place.ATTENTION)


def batch(lengths, heads=1, width=64, dtype=torch.float32, spare=3):
    """qkv, grad and options of a packed batch, on the device; `spare` rows belong to no sequence."""
    generator = torch.Generator().manual_seed(0)
    rows = sum(lengths) + spare
    qkv = torch.randn(rows, 3, heads, width, generator=generator).to(DEVICE, dtype)
    grad = torch.randn(rows, heads, width, generator=generator).to(DEVICE, dtype)
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(DEVICE, torch.int32)
    keys = torch.randint(-(2**63), 2**63 - 1, (len(lengths),), generator=generator)
    options = {"offsets": offsets, "lengths": None, "rng": torch.tensor([17 - 2**40, 2**35], device=DEVICE)}
    return qkv, grad, options | {"sample_keys": keys.to(DEVICE), "site": SITE}


def triton(qkv, grad, offsets, lengths, rng, sample_keys, site, p, scale=0.125):
    """(output, gradient) of the raw operators, which run the interpreter too."""
    rest = (offsets, lengths, rng, sample_keys, site, p, scale, "triton")
    out, lse = torch.ops.memofast.attention(qkv, *rest)
    return out, torch.ops.memofast.attention_backward(grad, out, lse, qkv, *rest)


def reference(qkv, grad, p, scale=0.125, **options):
    leaf = qkv.detach().clone().requires_grad_()
    out = attention_reference(leaf, p=p, scale=scale, **options)
    (grad_qkv,) = torch.autograd.grad(out + 0 * leaf[:, 0], leaf, grad.to(out.dtype))  # no sequence: zero, not an error
    return out.detach(), grad_qkv


def check(qkv, grad, **options):
    """Within the rule; the interpreter cuts bf16 off, which doubles its error."""
    got, plain = triton(qkv, grad, **options), reference(qkv, grad, **options)
    exact = reference(qkv.double(), grad.double(), **options)
    assert all(mine.dtype == qkv.dtype for mine in got)
    assert_within_rule(got, plain, exact, doubled=INTERPRETED and qkv.dtype == torch.bfloat16)
    return got


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="runs this file")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:]


@on_device
@pytest.mark.parametrize(
    ("dtype", "p"),
    [(torch.float32, 0.0), (torch.float32, 0.1), (torch.bfloat16, 0.0), (torch.bfloat16, 0.1), (torch.float16, 0.1)],
)
def test_matches_reference(dtype, p, poisoned_memory):
    qkv, grad, options = batch(ODD, dtype=dtype)
    out, grad_qkv = check(qkv, grad, p=p, **options)
    assert not out[-3:].any() and not grad_qkv[-3:].any()


@on_device
@pytest.mark.parametrize(
    ("heads", "width"), [(2, 24), (1, 128)] if INTERPRETED else [(3, 16), (2, 24), (1, 48), (2, 96), (1, 128)]
)
def test_head_widths(heads, width, poisoned_memory):
    for dtype in TYPES[: 1 if INTERPRETED else 3]:
        check(*(case := batch([17, 0, 40], heads, width, dtype))[:2], p=0.1, **case[2])


@on_device
def test_padded_equals_packed(poisoned_memory):
    lengths, longest = [7, 0, 40], 40
    qkv, grad, options = batch(lengths, heads=2, spare=0)
    inside = torch.arange(longest, device=DEVICE) < torch.tensor(lengths, device=DEVICE)[:, None]
    padded_qkv = qkv.new_full((3, longest, *qkv.shape[1:]), float("nan"))
    padded_grad = grad.new_full((3, longest, *grad.shape[1:]), float("nan"))
    padded_qkv[inside], padded_grad[inside] = qkv, grad
    padded = options | {
        "offsets": torch.arange(0, 3 * longest + 1, longest, dtype=torch.int32, device=DEVICE),
        "lengths": torch.tensor(lengths, dtype=torch.int32, device=DEVICE),
    }
    results = triton(padded_qkv.flatten(0, 1), padded_grad.flatten(0, 1), p=0.2, **padded)
    for packed, result in zip(triton(qkv, grad, p=0.2, **options), results, strict=True):
        result = result.unflatten(0, (3, longest))
        assert torch.equal(result[inside], packed)
        assert not result[~inside].any()


@on_device
@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0], [1]])
@pytest.mark.parametrize("spare", [0, 70])
def test_empty(lengths, spare, poisoned_memory):
    qkv, grad, options = batch(lengths, heads=2, spare=spare)
    results = triton(qkv, grad, p=0.1, **options)
    torch.testing.assert_close(results, reference(qkv, grad, p=0.1, **options))


@on_device
def test_dropout_follows_the_mask():
    """With equal scores and one-hot values the output is the keep mask itself, bit for bit."""
    length, heads, p = 40 if INTERPRETED else 72, 2, 0.3
    _, _, options = batch([length], spare=0)
    qkv = torch.zeros(length, 3, heads, length, device=DEVICE)
    qkv[:, 2] = torch.eye(length, device=DEVICE)[:, None]
    out, _ = triton(qkv, qkv[:, 0], p=p, **options)
    keep = attention_keep_mask(options["rng"], SITE, options["sample_keys"], heads, length, p)[0]
    assert torch.equal(out.transpose(0, 1) != 0, keep)
    torch.testing.assert_close(out.transpose(0, 1), keep * philox.keep_scale(p) / length)


@on_device
def test_bitwise_repeatable_in_any_batch():
    long = 40 if INTERPRETED else 70
    qkv, grad, options = batch([5, long, 9], spare=0)
    whole = triton(qkv, grad, p=0.1, **options)
    for once, again in zip(whole, triton(qkv, grad, p=0.1, **options), strict=True):
        assert torch.equal(once, again)
    own = slice(5, 5 + long)
    alone = options | {
        "offsets": torch.tensor([0, long], dtype=torch.int32, device=DEVICE),
        "sample_keys": options["sample_keys"][1:2],
    }
    for mine, all_rows in zip(triton(qkv[own].clone(), grad[own].clone(), p=0.1, **alone), whole, strict=True):
        assert torch.equal(mine, all_rows[own])


@on_device
def test_large_scores_stay_finite():
    qkv, grad, options = batch([50])
    exact = reference(qkv.double() * 20, grad, p=0.0, **options)
    for result, truth in zip(triton(qkv * 20, grad, p=0.0, **options), exact, strict=True):
        torch.testing.assert_close(result.double(), truth, atol=1e-3 * truth.abs().max().item(), rtol=0)


def triton_cross(q, kv, query_offsets, offsets, *, rng, sample_keys, site, p, lengths=None):
    """The output, by raw operators, with a derivative of its own: what `cross_attention` is on a GPU."""
    rest = (query_offsets, offsets, lengths, rng, sample_keys, site, p, 0.125, "triton")

    class Raw(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, kv):
            out, lse = torch.ops.memofast.cross_attention(q, kv, *rest)
            ctx.save_for_backward(out, lse, q, kv)
            return out

        @staticmethod
        def backward(ctx, grad):
            return torch.ops.memofast.cross_attention_backward(grad, *ctx.saved_tensors, *rest)

    return Raw.apply(q, kv)


@on_device
@pytest.mark.parametrize(("dtype", "p"), [(torch.float32, 0.1), (torch.bfloat16, 0.1), (torch.float16, 0.0)])
def test_queries_of_their_own(dtype, p, poisoned_memory):
    lengths = [(3, 17), (0, 5), (5, 0), (33, 65), (65, 1), (0, 0)] if INTERPRETED else cross_cases.ODD
    q, kv, grad, options = cross_cases.batch(lengths, heads=2, dtype=dtype, spare=3)
    q, kv, grad = (x.to(DEVICE) for x in (q, kv, grad))
    options = {name: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    got = cross_cases.compare(triton_cross, q, kv, grad, p=p, **options)
    assert not any(x[-3:].any() for x in got)


@on_device
def test_queries_of_the_same_rows_are_attention():
    qkv, grad, options = batch([7, 0, 40 if INTERPRETED else 70], heads=2)
    expected = triton(qkv, grad, p=0.2, **options)
    parts = qkv[:, 0].contiguous(), qkv[:, 1:].contiguous()
    out, grad_q, grad_kv = cross_cases.run(
        triton_cross, *parts, grad, p=0.2, query_offsets=options["offsets"], **options
    )
    assert torch.equal(out, expected[0])
    assert torch.equal(torch.cat((grad_q[:, None], grad_kv), 1), expected[1])


@on_device
def test_refuses_wide_heads():
    qkv, grad, options = batch([3], width=136)
    with pytest.raises(ValueError, match="at most 128 channels"):
        triton(qkv, grad, p=0.0, **options)


def test_needs_a_gpu():
    with pytest.raises(ValueError, match="needs cuda tensors"):
        attention(torch.zeros(3, 3, 1, 16), torch.tensor([0, 3], dtype=torch.int32), backend="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES)
def test_compile_fullgraph(dtype):
    qkv, grad, options = batch([4, 0, 90], dtype=dtype)

    def doubled(x):
        return attention(x * 2, p=0.1, backend="triton", **options) + 1

    def run(function):
        leaf = qkv.clone().requires_grad_()
        out = function(leaf)
        out.backward(grad)
        return out.detach(), leaf.grad

    torch.testing.assert_close(run(torch.compile(doubled, fullgraph=True)), run(doubled))


@pytest.mark.gpu
def test_opcheck():
    qkv, grad, options = batch([4, 0, 9])
    rest = (*options.values(), 0.1, 0.125, "triton")
    torch.library.opcheck(torch.ops.memofast.attention.default, (qkv, *rest))
    out, lse = torch.ops.memofast.attention(qkv, *rest)
    torch.library.opcheck(torch.ops.memofast.attention_backward.default, (grad, out, lse, qkv, *rest))


@pytest.mark.gpu
def test_graph_replay_draws_anew():
    """A captured launch reads offsets, keys and the update number at every replay."""
    qkv, grad, options = batch([40, 70, 0, 33])
    triton(qkv, grad, p=0.1, **options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = triton(qkv, grad, p=0.1, **options)
    options["rng"] += 1
    options["offsets"].copy_(torch.tensor([0, 70, 75, 140, 143]))
    graph.replay()
    for replayed, eager in zip(results, triton(qkv, grad, p=0.1, **options), strict=True):
        assert torch.equal(replayed, eager)

from itertools import pairwise

import pytest
import torch
from error_rule import assert_within_rule

from memofast.ops import philox
from memofast.ops.attention import attention
from memofast.ops.attention_reference import attention_keep_mask, attention_reference

FAST = ["torch", "cpu"]
ODD = [1, 15, 16, 17, 33, 63, 100, 0, 129, 160, 5, 0]
SITE = philox.site(2, philox.Place.ATTENTION)


def batch(lengths, heads=2, width=64, dtype=torch.float32, seed=0, spare=0):
    """qkv, grad, and the keyword arguments that a packed batch of these lengths needs."""
    generator = torch.Generator().manual_seed(seed)
    rows = sum(lengths) + spare
    qkv = torch.randn(rows, 3, heads, width, generator=generator).to(dtype)
    grad = torch.randn(rows, heads, width, generator=generator).to(dtype)
    offsets = torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(torch.int32)
    keys = torch.randint(-(2**63), 2**63 - 1, (len(lengths),), generator=generator)
    options = {"offsets": offsets, "rng": torch.tensor([17, 40]), "sample_keys": keys, "site": SITE}
    return qkv, grad, options


def run(function, qkv, grad, **options):
    leaf = qkv.detach().clone().requires_grad_()
    out = function(leaf, **options)
    out.backward(grad.to(out.dtype))
    return out.detach(), leaf.grad


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("dtype", "p"), [(torch.float32, 0.0), (torch.float32, 0.1), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize(("heads", "width"), [(3, 64), (2, 32), (1, 48), (2, 96), (1, 128), (2, 8), (1, 40)])
def test_matches_reference(backend, dtype, p, heads, width, poisoned_memory):
    qkv, grad, options = batch(ODD, heads, width, dtype, spare=3)
    got = run(attention, qkv, grad, p=p, backend=backend, **options)
    plain = run(attention_reference, qkv, grad, p=p, **options)
    exact = run(attention_reference, qkv.double(), grad, p=p, **options)
    assert got[0].dtype == got[1].dtype == dtype
    assert_within_rule(got, plain, exact)
    assert not got[0][-3:].any() and not got[1][-3:].any()


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_padded_equals_packed(backend, poisoned_memory):
    lengths, longest = [7, 0, 33, 20], 40
    qkv, grad, options = batch(lengths)
    padded_qkv = torch.full((4, longest, *qkv.shape[1:]), float("nan"))
    padded_grad = torch.full((4, longest, *grad.shape[1:]), float("nan"))
    for b, (start, n) in enumerate(zip(options["offsets"].tolist(), lengths, strict=False)):
        padded_qkv[b, :n], padded_grad[b, :n] = qkv[start : start + n], grad[start : start + n]
    out, grad_qkv = run(attention, qkv, grad, p=0.2, backend=backend, **options)
    options["offsets"] = torch.arange(0, 4 * longest + 1, longest, dtype=torch.int32)
    used = torch.tensor(lengths, dtype=torch.int32)
    padded = run(
        attention, padded_qkv.flatten(0, 1), padded_grad.flatten(0, 1), p=0.2, lengths=used, backend=backend, **options
    )
    inside = torch.arange(longest) < used[:, None]
    for packed, result in zip((out, grad_qkv), padded, strict=True):
        result = result.unflatten(0, (4, longest))
        assert torch.equal(result[inside], packed)
        assert not result[~inside].any()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0], [1]])
def test_empty(backend, lengths, poisoned_memory):
    qkv, grad, options = batch(lengths, spare=2)
    out, grad_qkv = run(attention, qkv, grad, p=0.1, backend=backend, **options)
    expected = run(attention_reference, qkv, grad, p=0.1, **options) if sum(lengths) else (out * 0, grad_qkv * 0)
    torch.testing.assert_close((out, grad_qkv), expected)
    qkv, grad, options = batch(lengths)
    assert run(attention, qkv, grad, backend=backend, **options)[0].shape == (sum(lengths), 2, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_repeatable_for_any_threads_and_batch(dtype, poisoned_memory):
    qkv, grad, options = batch(ODD, dtype=dtype)
    expected = run(attention, qkv, grad, p=0.1, backend="cpu", **options)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for once, again in zip(expected, run(attention, qkv, grad, p=0.1, backend="cpu", **options), strict=True):
                assert torch.equal(once, again)
    finally:
        torch.set_num_threads(before)
    for b, (start, stop) in enumerate(pairwise(options["offsets"].tolist())):
        alone = {
            "offsets": torch.tensor([0, stop - start], dtype=torch.int32),
            "sample_keys": options["sample_keys"][b : b + 1],
        }
        mine = run(
            attention, qkv[start:stop].clone(), grad[start:stop].clone(), p=0.1, backend="cpu", **options | alone
        )
        for part, whole in zip(mine, expected, strict=True):
            assert torch.equal(part, whole[start:stop])


def test_long_sequence():
    qkv, grad, options = batch([1100], heads=1)
    got = run(attention, qkv, grad, p=0.1, backend="cpu", **options)
    torch.testing.assert_close(got, run(attention_reference, qkv, grad, p=0.1, **options), atol=2e-6, rtol=1e-4)


def test_large_scores_stay_finite():
    qkv, grad, options = batch([50])
    got = run(attention, qkv * 60, grad, backend="cpu", **options)
    exact = run(attention_reference, qkv.double() * 60, grad, **options)
    for mine, truth in zip(got, exact, strict=True):
        torch.testing.assert_close(mine.double(), truth, atol=1e-3 * truth.abs().max().item(), rtol=0)


def test_scale():
    qkv, grad, options = batch([9, 30])
    for backend in FAST:
        torch.testing.assert_close(
            run(attention, qkv, grad, scale=0.3, backend=backend, **options),
            run(attention_reference, qkv, grad, scale=0.3, **options),
        )


def test_keep_mask_layout():
    """Position = head << 16 | query, block = key // 8, purpose 2: fixed words, and the same through plain Philox."""
    rng, keys = torch.tensor([1234, 7]), torch.tensor([-3, 5])
    mask = attention_keep_mask(rng, 257, keys, heads=2, length=19, p=0.5)
    assert mask.shape == (2, 2, 19, 19)
    rows = [int("".join("01"[int(kept)] for kept in row), 2) for row in (mask[0, 0, 0], mask[0, 1, 18], mask[1, 1, 3])]
    assert rows == [341152, 228834, 111554]
    key = philox.stream_key(rng, 2, 257)
    words = philox.draw(key, keys[1], torch.tensor(1 << 16 | 3), torch.tensor(2)).tolist()
    lanes = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    assert mask[1, 1, 3, 16:].tolist() == [lane >= 32768 for lane in lanes[:3]]


@pytest.mark.parametrize("backend", FAST)
def test_dropout_follows_the_mask(backend):
    """With equal scores and one-hot values the output is the keep mask itself."""
    length, heads, width, p = 40, 2, 40, 0.3
    qkv = torch.zeros(length, 3, heads, width)
    qkv[:, 2] = torch.eye(length)[:, None]
    _, _, options = batch([length])
    out = attention(qkv, p=p, backend=backend, **options)
    keep = attention_keep_mask(options["rng"], SITE, options["sample_keys"], heads, length, p)[0]
    torch.testing.assert_close(out.transpose(0, 1), keep * philox.keep_scale(p) / length)
    again = options | {"rng": options["rng"] + torch.tensor([0, 1])}
    assert not torch.equal(attention(qkv, p=p, backend=backend, **again), out)


def test_reference_gradient():
    qkv, _, options = batch([3, 0, 5], heads=1, width=8)
    qkv = qkv.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attention(x, p=0.3, backend="reference", **options), (qkv,))


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_opcheck(backend):
    qkv, grad, options = batch([4, 0, 9])
    rest = (options["offsets"], None, options["rng"], options["sample_keys"], SITE, 0.1, 0.125, backend)
    torch.library.opcheck(torch.ops.memofast.attention.default, (qkv, *rest))
    out, lse = torch.ops.memofast.attention(qkv, *rest)
    torch.library.opcheck(torch.ops.memofast.attention_backward.default, (grad, out, lse, qkv, *rest))
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.ops.memofast.attention(qkv.requires_grad_(), *rest)


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
def test_compile(backend):
    qkv, grad, options = batch([4, 0, 9])
    compiled = torch.compile(lambda x, **o: attention(x * 2, **o) + 1, fullgraph=True)
    expected = run(lambda x, **o: attention(x * 2, **o) + 1, qkv, grad, p=0.1, backend=backend, **options)
    torch.testing.assert_close(run(compiled, qkv, grad, p=0.1, backend=backend, **options), expected)


def test_second_derivative_is_refused():
    qkv, _, options = batch([4, 5])
    out = attention(qkv.requires_grad_(), backend="cpu", **options)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.autograd.grad(out.square().sum(), qkv, create_graph=True)


def test_refusals():
    qkv, _, options = batch([4, 5])
    offsets, keys, rng = options["offsets"], options["sample_keys"], options["rng"]
    cases = [
        ("qkv must be", (qkv.half(), offsets), {}),
        ("qkv must be", (qkv.double(), offsets), {"backend": "torch"}),
        ("qkv must have shape", (qkv[:, :2], offsets), {}),
        ("multiple of 8", (qkv[..., :12].contiguous(), offsets), {}),
        ("contiguous", (qkv.transpose(0, 2).contiguous().transpose(0, 2), offsets), {}),
        ("offsets must be torch.int32", (qkv, offsets.long()), {}),
        ("offsets must have shape", (qkv, offsets[:0]), {}),
        ("lengths must have shape", (qkv, offsets), {"lengths": offsets}),
        ("needs rng and sample_keys", (qkv, offsets), {"p": 0.1}),
        ("rng must have shape", (qkv, offsets), {"p": 0.1, "rng": rng[:1], "sample_keys": keys}),
        ("sample_keys must have shape", (qkv, offsets), {"p": 0.1, "rng": rng, "sample_keys": keys[:1]}),
        ("probability", (qkv, offsets), {"p": 1.0, "rng": rng, "sample_keys": keys}),
        ("not one of auto, reference", (qkv, offsets), {"backend": "cudnn"}),
    ]
    for message, arguments, keywords in cases:
        with pytest.raises(ValueError, match=message):
            attention(*arguments, **keywords)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("wrong", [[1, 4, 9], [0, 6, 5], [0, 4, 10]])
def test_wrong_offsets(backend, wrong):
    qkv, _, _ = batch([4, 5])
    with pytest.raises(ValueError, match="offsets must start at 0"):
        attention(qkv, torch.tensor(wrong, dtype=torch.int32), backend=backend)
    good = torch.tensor([0, 4, 9], dtype=torch.int32)
    with pytest.raises(ValueError, match="offsets must start at 0"):
        attention(qkv, good, lengths=torch.tensor([5, 5], dtype=torch.int32), backend=backend)


def on_gpu(qkv, grad, options):
    return qkv.cuda(), grad.cuda(), {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize(("heads", "width"), [(3, 64), (2, 32), (2, 96), (1, 128)])
def test_gpu_matches_reference(heads, width, p, dtype, poisoned_memory):
    qkv, grad, options = on_gpu(*batch([*ODD, 700], heads, width, dtype, spare=3))
    got = run(attention, qkv, grad, p=p, backend="cuda", **options)
    plain = run(attention_reference, qkv, grad, p=p, **options)
    exact = run(attention_reference, qkv.double(), grad, p=p, **options)
    assert_within_rule(got, plain, exact)
    assert not got[0][-3:].any() and not got[1][-3:].any()
    for longest in (0, 160, 700):
        again = run(attention, qkv, grad, p=p, longest=longest, **options)  # auto is cuda
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.gpu
def test_gpu_other_widths():
    qkv, grad, options = on_gpu(*batch([17, 33], width=40))
    got = run(attention, qkv, grad, p=0.1, **options)
    torch.testing.assert_close(got, run(attention_reference, qkv, grad, p=0.1, **options))
    with pytest.raises(ValueError, match="not covered"):
        attention(qkv, backend="cuda", **options)


@pytest.mark.gpu
def test_gpu_captured_without_waiting():
    """A CUDA graph of forward and backward gives, for other values, lengths and steps, what eager mode gives."""
    qkv, grad, options = on_gpu(*batch([40, 100, 17], dtype=torch.bfloat16))
    leaf = qkv.clone().requires_grad_()

    def step():
        out = attention(leaf, p=0.1, backend="cuda", **options)
        return out.detach(), torch.autograd.grad(out, leaf, grad)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        leaf.mul_(0.5)
        options["offsets"].copy_(torch.tensor([0, 90, 95, 157]))
        options["rng"].add_(1)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))

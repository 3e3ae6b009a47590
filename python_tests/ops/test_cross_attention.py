"""Attention of queries with rows of their own, against the reference and against `attention`."""

import pytest
import torch
from error_rule import assert_within_rule
from test_attention import FAST, SITE, on_gpu
from test_attention import batch as self_batch
from test_attention import run as run_alone

from memofast.ops.attention import attention, cross_attention
from memofast.ops.attention_reference import attention_reference, cross_attention_reference

# Queries and keys of each sequence: few of many, many of few, none of some, some of none.
ODD = [
    (3, 17),
    (1, 1),
    (0, 5),
    (5, 0),
    (16, 15),
    (33, 129),
    (160, 63),
    (17, 160),
    (0, 0),
    (63, 33),
    (1, 100),
    (100, 16),
]
ODD += [(129, 1), (15, 129)]


def batch(lengths=ODD, heads=2, width=64, dtype=torch.float32, spare=0):
    """q, kv, grad and the keyword arguments that a batch of these lengths needs; `spare` rows of each belong to no
    sequence."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor(lengths, dtype=torch.int64).reshape(-1, 2)
    queries, keys = (counts.sum(0) + spare).tolist()
    q = torch.randn(queries, heads, width, generator=generator).to(dtype)
    kv = torch.randn(keys, 2, heads, width, generator=generator).to(dtype)
    grad = torch.randn(queries, heads, width, generator=generator).to(dtype)
    starts = torch.cat([torch.zeros(1, 2, dtype=torch.int64), counts.cumsum(0)]).to(torch.int32)
    sample_keys = torch.randint(-(2**63), 2**63 - 1, (len(lengths),), generator=generator)
    options = {"query_offsets": starts[:, 0].contiguous(), "offsets": starts[:, 1].contiguous()}
    return q, kv, grad, options | {"rng": torch.tensor([17, 40]), "sample_keys": sample_keys, "site": SITE}


def run(function, q, kv, grad, **options):
    """Output and gradients of q and kv."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, kv)]
    out = function(*leaves, **options)
    return out.detach(), *torch.autograd.grad(out + 0 * leaves[1].sum(), leaves, grad.to(out.dtype))


def compare(function, q, kv, grad, **options):
    """Within the rule, zero where nothing is asked or nothing is there to be asked."""
    got = run(function, q, kv, grad, **options)
    options.pop("longest", None)
    plain = run(cross_attention_reference, q, kv, grad, **options)
    exact = run(cross_attention_reference, q.double(), kv.double(), grad, **options)
    assert all(x.dtype == q.dtype for x in got)
    assert_within_rule(got, plain, exact)
    for query, next_query, key, next_key in places(options):
        if query == next_query or key == next_key:
            assert not any(x[query:next_query].any() for x in got[:2]) and not got[2][key:next_key].any()
    return got


def places(options):
    """First and last row of each sequence's queries and of its keys."""
    starts, offsets = options["query_offsets"].tolist(), options["offsets"].tolist()
    return zip(starts[:-1], starts[1:], offsets[:-1], offsets[1:], strict=True)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("dtype", "p"), [(torch.float32, 0.0), (torch.float32, 0.1), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize(("heads", "width"), [(3, 64), (2, 32), (1, 48), (1, 128), (2, 8)])
def test_matches_reference(backend, dtype, p, heads, width, poisoned_memory):
    q, kv, grad, options = batch(ODD, heads, width, dtype, spare=3)
    got = compare(lambda *a, **o: cross_attention(*a, backend=backend, **o), q, kv, grad, p=p, **options)
    assert not got[0][-3:].any() and not got[1][-3:].any() and not got[2][-3:].any()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_of_the_same_rows_is_attention(backend, p, poisoned_memory):
    qkv, grad, options = self_batch([7, 0, 33, 130, 1], dtype=torch.bfloat16, spare=2)
    expected = run_alone(attention, qkv, grad, p=p, backend=backend, **options)
    out, grad_q, grad_kv = run(
        cross_attention, qkv[:, 0].contiguous(), qkv[:, 1:].contiguous(), grad, p=p, backend=backend,
        query_offsets=options["offsets"], **options,
    )  # fmt: skip
    assert torch.equal(out, expected[0])
    assert torch.equal(torch.cat((grad_q[:, None], grad_kv), 1), expected[1])


def test_reference_of_chosen_rows_is_the_chosen_part():
    qkv, _, options = self_batch([12, 5, 30])
    chosen = torch.tensor([0, 3, 11, 14, 17, 40, 46])
    whole = attention_reference(qkv.double(), options["offsets"])
    asked = torch.searchsorted(chosen, options["offsets"].long()).to(torch.int32)
    part = cross_attention_reference(qkv[chosen, 0].double(), qkv[:, 1:].double(), asked, options["offsets"])
    torch.testing.assert_close(part, whole[chosen])


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_padded_keys_equal_packed(backend, poisoned_memory):
    lengths, longest = [(4, 7), (2, 0), (9, 33), (0, 20)], 40
    q, kv, grad, options = batch(lengths)
    packed = run(cross_attention, q, kv, grad, p=0.2, backend=backend, **options)
    used = torch.tensor([keys for _, keys in lengths], dtype=torch.int32)
    inside = torch.arange(longest) < used[:, None]
    padded = torch.full((4, longest, *kv.shape[1:]), float("nan"))
    padded[inside] = kv
    options |= {"offsets": torch.arange(0, 4 * longest + 1, longest, dtype=torch.int32), "lengths": used}
    out, grad_q, grad_kv = run(
        lambda a, b, **o: cross_attention(a, b, **o), q, padded.flatten(0, 1).nan_to_num(9.0), grad, p=0.2,
        backend=backend, **options,
    )  # fmt: skip
    grad_kv = grad_kv.unflatten(0, (4, longest))
    assert torch.equal(out, packed[0]) and torch.equal(grad_q, packed[1]) and torch.equal(grad_kv[inside], packed[2])
    assert not grad_kv[~inside].any()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("lengths", [[], [(0, 0)], [(4, 0), (2, 0)], [(0, 4), (0, 0)], [(1, 1)]])
def test_empty(backend, lengths, poisoned_memory):
    for spare in (0, 2):
        q, kv, grad, options = batch(lengths, spare=spare)
        got = run(cross_attention, q, kv, grad, p=0.1, backend=backend, **options)
        assert [x.shape for x in got] == [q.shape, q.shape, kv.shape]
        if lengths != [(1, 1)]:
            assert not any(x.any() for x in got)


def test_bitwise_repeatable_for_any_threads(poisoned_memory):
    q, kv, grad, options = batch(dtype=torch.bfloat16)
    expected = run(cross_attention, q, kv, grad, p=0.1, backend="cpu", **options)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            again = run(cross_attention, q, kv, grad, p=0.1, backend="cpu", **options)
            assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    finally:
        torch.set_num_threads(before)


def test_gradient_of_one_operand():
    """Keys of a frozen encoder, and frozen queries."""
    q, kv, grad, options = batch([(3, 5), (2, 4)])
    _, grad_q, grad_kv = run(cross_attention, q, kv, grad, **options)
    for which, expected in (("q", grad_q), ("kv", grad_kv)):
        leaf = {"q": q, "kv": kv}[which].clone().requires_grad_()
        out = cross_attention(leaf if which == "q" else q, leaf if which == "kv" else kv, **options)
        assert torch.equal(torch.autograd.grad(out, leaf, grad)[0], expected)


def test_reference_gradient():
    q, kv, _, options = batch([(2, 3), (0, 2), (3, 0), (4, 5)], heads=1, width=8)
    leaves = q.double().requires_grad_(), kv.double().requires_grad_()
    for backend_p in (0.0, 0.3):
        assert torch.autograd.gradcheck(
            lambda a, b, p=backend_p: cross_attention(a, b, p=p, backend="reference", **options), leaves
        )


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_opcheck(backend):
    q, kv, grad, options = batch([(2, 4), (3, 0), (1, 9)])
    starts, offsets, rng, keys, site = options.values()
    rest = (starts, offsets, None, rng, keys, site, 0.1, 0.125, backend)
    torch.library.opcheck(torch.ops.memofast.cross_attention.default, (q, kv, *rest))
    out, lse = torch.ops.memofast.cross_attention(q, kv, *rest)
    torch.library.opcheck(torch.ops.memofast.cross_attention_backward.default, (grad, out, lse, q, kv, *rest))
    with pytest.raises(RuntimeError, match=r"no derivative; call memofast\.ops\.cross_attention"):
        torch.ops.memofast.cross_attention(q, kv.requires_grad_(), *rest)


@pytest.mark.slow
def test_compile():
    q, kv, grad, options = batch([(2, 4), (3, 0), (1, 9)])

    def doubled(q, kv, **o):
        return cross_attention(q * 2, kv, p=0.1, **o) + 1

    got = run(torch.compile(doubled, fullgraph=True), q, kv, grad, **options)
    torch.testing.assert_close(got, run(doubled, q, kv, grad, **options))


def test_refusals():
    q, kv, _, options = batch([(2, 4), (3, 5)])
    starts, offsets = options["query_offsets"], options["offsets"]
    cases = [
        ("kv must have shape", (q, torch.cat((kv, kv), 1), starts, offsets), {}),
        ("kv must be", (q.half(), kv.half(), starts, offsets), {}),
        ("kv .* multiple of 8", (q[..., :12].contiguous(), kv[..., :12].contiguous(), starts, offsets), {}),
        ("q must be torch.float32", (q.bfloat16(), kv, starts, offsets), {}),
        ("q must have shape", (q[:, :1].contiguous(), kv, starts, offsets), {}),
        ("q must be contiguous", (q.transpose(0, 1).contiguous().transpose(0, 1), kv, starts, offsets), {}),
        ("query_offsets must have shape", (q, kv, starts[:2], offsets), {}),
        ("query_offsets must be torch.int32", (q, kv, starts.long(), offsets), {}),
        ("needs rng and sample_keys", (q, kv, starts, offsets), {"p": 0.1}),
        ("not one of auto, reference", (q, kv, starts, offsets), {"backend": "cudnn"}),
    ]
    for message, arguments, keywords in cases:
        with pytest.raises(ValueError, match=f"^cross_attention: .*{message}"):
            cross_attention(*arguments, **keywords)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("wrong", [[1, 2, 5], [0, 6, 5], [0, 2, 6]])
def test_wrong_offsets(backend, wrong):
    q, kv, _, options = batch([(2, 2), (3, 3)])
    good, wrong = options["offsets"], torch.tensor(wrong, dtype=torch.int32)
    for starts, offsets in ((good, wrong), (wrong, good)):
        with pytest.raises(ValueError, match="offsets must start at 0"):
            cross_attention(q, kv, starts, offsets, backend=backend)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize(("heads", "width"), [(3, 64), (2, 32), (2, 96), (1, 128)])
def test_gpu_matches_reference(heads, width, p, dtype, poisoned_memory):
    q, kv, grad, options = batch([*ODD, (700, 30), (20, 700)], heads, width, dtype, spare=3)
    q, grad, options = on_gpu(q, grad, options)
    kv = kv.cuda()
    got = compare(cross_attention, q, kv, grad, p=p, **options)  # auto is cuda
    for longest in (160, 700):
        again = run(cross_attention, q, kv, grad, p=p, longest=longest, **options)
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.gpu
def test_gpu_captured_without_waiting():
    """A CUDA graph of forward and backward gives, for other lengths and steps, what eager mode gives."""
    q, kv, grad, options = batch([(4, 40), (20, 100), (3, 17)], dtype=torch.bfloat16)
    q, grad, options = on_gpu(q, grad, options)
    leaves = q.requires_grad_(), kv.cuda().requires_grad_()

    def step():
        out = cross_attention(*leaves, p=0.1, backend="cuda", **options)
        return out.detach(), *torch.autograd.grad(out, leaves, grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    options["offsets"].copy_(torch.tensor([0, 90, 95, 157]))
    options["query_offsets"].copy_(torch.tensor([0, 9, 11, 25]))
    options["rng"].add_(1)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("dtype", "p"), [(torch.float32, 0.0), (torch.float32, 0.1), (torch.bfloat16, 0.1)])
def test_causal_matches_reference(backend, dtype, p, poisoned_memory):
    q, kv, grad, options = batch([*ODD, (50, 50), (97, 95)], 2, 8, dtype, spare=3)
    options |= {"p": p, "causal": True}
    got = compare(lambda *a, **o: cross_attention(*a, backend=backend, **o), q, kv, grad, **options)
    assert not torch.equal(got[0], cross_attention(q, kv, backend=backend, **(options | {"causal": False})))


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize(("queries", "keys"), [(3, 3), (70, 2), (2, 70), (40, 60)])
def test_causal_hides_what_is_further_ahead_than_the_difference(backend, queries, keys):
    q, kv, _, options = batch([(queries, keys)], 1, 8)
    rows, last = kv.clone(), keys - 1
    seen = last <= torch.arange(queries) + abs(queries - keys)
    rows[last] = 50.0
    before, after = (cross_attention(q, one, causal=True, backend=backend, **options) for one in (kv, rows))
    assert torch.equal((before != after).any(2).any(1), seen)


@pytest.mark.parametrize("backend", FAST)
def test_causal_attention_of_the_same_rows(backend, poisoned_memory):
    qkv, grad, options = self_batch([7, 0, 33, 130, 1], width=16)
    options |= {"p": 0.2, "causal": True}
    got = run_alone(attention, qkv, grad, backend=backend, **options)
    exact = run_alone(attention_reference, qkv.double(), grad, **options)
    for ours, theirs in zip(got, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=2e-5)


def test_backends_without_a_causal_kernel_say_so():
    q, kv, _, options = batch([(3, 4)], 1, 8)
    raw = (q, kv, options["query_offsets"], options["offsets"], None, None, None, 0, 0.0, 1.0, "triton", 0, True)
    with pytest.raises(ValueError, match="backend triton has no causal kernel; use torch"):
        torch.ops.memofast.cross_attention(*raw)

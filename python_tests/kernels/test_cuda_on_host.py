"""The CUDA row kernels, run by the host, against the operators' references."""

import embed_cases
import pytest
import test_bias_gelu as gelu_cases
import test_dropout_add_norm as norm_cases
import test_separable_attention as grid_cases
import test_span_mask as span_cases
import test_token_mask as token_cases
import torch
from error_rule import assert_within_rule

from memofast.ops import (
    bias_gelu,
    bias_gelu_reference,
    dropout_add_norm,
    dropout_add_norm_reference,
    embed,
    embed_reference,
    separable_attention,
    separable_attention_reference,
    span_mask,
    span_mask_reference,
    token_mask,
    token_mask_reference,
)

TYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "width"), [(0, 768), (1, 7), (1, 768), (33, 257), (65, 7), (65, 768), (160, 257)])
def test_bias_gelu(cuda_on_host, poisoned_memory, rows, width, dtype):
    for bias in {torch.float32, dtype}:
        x, shift, grad = gelu_cases.batch(rows, width, dtype, bias)
        got = cuda_on_host(gelu_cases.run, bias_gelu, x, shift, grad, backend="cuda")
        exact = gelu_cases.run(bias_gelu_reference, x.double(), shift.double(), grad)
        gelu_cases.check(got, gelu_cases.run(gelu_cases.plain, x, shift, grad), exact)


@pytest.mark.parametrize(
    ("width", "p", "dtype"),
    [
        *((width, p, dtype) for dtype in TYPES for width, p in ((7, 0.1), (264, 0.0), (264, 0.1), (768, 0.1))),
        (7, 0.0, torch.float32),
        (1100, 0.0, torch.float16),
        (3000, 0.1, torch.bfloat16),
    ],
)
def test_dropout_add_norm(cuda_on_host, poisoned_memory, width, p, dtype):
    for bias in (None, torch.float32, dtype):
        tensors, grad, options = norm_cases.batch(width, dtype=dtype, bias=bias)
        options |= {"p": p, "eps": 1e-3 if width == 1 else 1e-12}
        got = cuda_on_host(norm_cases.run, dropout_add_norm, tensors, grad, backend="cuda", **options)
        ordinary = norm_cases.run(norm_cases.plain, tensors, grad, **options)
        wide = [t if t is None else t.double() for t in tensors]
        exact = norm_cases.run(dropout_add_norm_reference, wide, grad, **options)
        assert_within_rule(got, ordinary, exact, of_sums=True)
        assert not any(t[-3:].any() for t in got[:3])


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0], [1]])
def test_dropout_add_norm_of_nothing(cuda_on_host, poisoned_memory, lengths):
    for spare in (0, 2):
        tensors, grad, options = norm_cases.batch(24, lengths, spare=spare)
        got = cuda_on_host(norm_cases.run, dropout_add_norm, tensors, grad, p=0.1, backend="cuda", **options)
        assert not any(t[sum(lengths) :].any() for t in got[:3])
        assert all(t.isfinite().all() for t in got)


@pytest.mark.parametrize(
    ("width", "p", "sources", "table", "dtype"),
    [
        *((40, 0.0, True, "fp32", dtype) for dtype in TYPES),
        *((40, 0.1, True, "compute", dtype) for dtype in TYPES),
        *((40, 0.1, False, "fp32", dtype) for dtype in TYPES),
        (1000, 0.1, True, "compute", torch.bfloat16),
    ],
)
def test_embed(cuda_on_host, poisoned_memory, monkeypatch, width, p, sources, table, dtype):
    table = torch.float32 if table == "fp32" else dtype
    given = embed_cases.operands(embed_cases.ODD, width, dtype, table, sources, spare=3)
    got = cuda_on_host(embed_cases.run, embed, given, p=p, backend="cuda")
    plain = embed_cases.run(embed_reference, embed_cases.cast(given, dtype), p=p)
    exact = embed_cases.run(embed_reference, embed_cases.cast(given, torch.float64), p=p)
    assert_within_rule(got, plain, exact, of_sums=True)
    assert not got["out"][-9:].any() and not got["visual.projected"][-3:].any()


@pytest.mark.parametrize("lengths", [[], [(0, 0, 0)], [(1, 0, 0)], [(2, 3, 0), (3, 0, 0)], [(0, 0, 5), (3, 0, 0)]])
def test_embed_of_little(cuda_on_host, poisoned_memory, lengths):
    empty = [name for place, name in ((1, "visual"), (2, "speech")) if not any(sample[place] for sample in lengths)]
    for absent in ([], empty):
        given = embed_cases.operands(lengths, spare=2) | dict.fromkeys(absent)
        got = cuda_on_host(embed_cases.run, embed, given, p=0.1, backend="cuda")
        plain = embed_cases.run(embed_reference, given, p=0.1)
        exact = embed_cases.run(embed_reference, embed_cases.cast(given, torch.float64), p=0.1)
        assert_within_rule(got, plain, exact, of_sums=True)


@pytest.mark.parametrize("policy", span_cases.POLICIES, ids=str)
def test_span_mask(cuda_on_host, poisoned_memory, policy):
    offsets, keys = span_cases.batch(span_cases.ODD)
    for selected in (None, torch.arange(len(keys)) % 3 != 1):
        for capacity in (7, 1024):
            options = {"rows": sum(span_cases.ODD) + 3, "site": 1, "selected": selected, "capacity": capacity}
            ours = cuda_on_host(span_mask, offsets, keys, span_cases.rng(), policy, backend="cuda", **options)
            theirs = span_mask_reference(offsets, keys, span_cases.rng(), policy, **options)
            span_cases.assert_same(ours, theirs)
            elsewhere = (theirs.source >= 0) & (theirs.source != torch.arange(options["rows"]))
            assert elsewhere.any() == policy.dice  # rows that read another span are among them


@pytest.mark.parametrize("policy", token_cases.POLICIES, ids=str)
def test_token_mask(cuda_on_host, poisoned_memory, policy):
    data = token_cases.batch(token_cases.ODD, spare=5)
    for selected in (None, torch.arange(len(token_cases.ODD)) % 3 != 1):
        for capacity in (7, 1024):
            options = {"site": 1 << 20, "selected": selected, "capacity": capacity}
            ours = cuda_on_host(token_mask, rng=token_cases.rng(), policy=policy, backend="cuda", **data, **options)
            theirs = token_mask_reference(rng=token_cases.rng(), policy=policy, **data, **options)
            token_cases.assert_same(ours, theirs)


@pytest.mark.parametrize("shape", [(9, 48, (2, 4, 3), 2), (66, 5, (3, 2, 11), 1), (1, 1, (1, 1, 1), 2)], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("dtype", TYPES)
def test_separable_attention(cuda_on_host, poisoned_memory, shape, p, dtype):
    tensors, grads, options = grid_cases.batch(*shape, dtype=dtype)
    got = cuda_on_host(grid_cases.run, separable_attention, tensors, grads, p=p, backend="cuda", **options)
    ordinary = grid_cases.run(grid_cases.plain, tensors, grads, p=p, **options)
    wide = [tensor.double() for tensor in tensors]
    exact = grid_cases.run(separable_attention_reference, wide, grads, p=p, **options)
    assert_within_rule(got, ordinary, exact, of_sums=True, tiny=2e-6)


def test_separable_attention_of_nothing(cuda_on_host, poisoned_memory):
    tensors, grads, options = grid_cases.batch(5, 4, (1, 2, 3), 0)
    got = cuda_on_host(grid_cases.run, separable_attention, tensors, grads, backend="cuda", **options)
    assert got["out"].shape == (0, 5, 11) and not got["queries"].any()

"""What `torch.compile` is told an operator returns, against what it returns: shapes, types and strides, in every type
that the reference takes."""

import pytest
import torch
from embed_cases import flat, operands
from torch._subclasses.fake_tensor import FakeTensorMode

OPS = torch.ops.memofast
RNG, KEYS = torch.tensor([17, 40]), torch.tensor([5, -6, 7])
OFFSETS = torch.tensor([0, 4, 4, 9], dtype=torch.int32)  # of 9 rows
KINDS = [("reference", torch.float64), ("reference", torch.bfloat16), ("cpu", torch.float32), ("cpu", torch.bfloat16)]
each_kind = pytest.mark.parametrize(("backend", "dtype"), KINDS)


def told(operator, arguments):
    """The operator's results, once it has told the same of them before."""
    results = operator(*arguments)
    with FakeTensorMode() as mode:
        given = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        fakes = operator(*given)
    single = isinstance(results, torch.Tensor)
    for fake, result in zip((fakes,) if single else fakes, (results,) if single else results, strict=True):
        assert (fake.shape, fake.dtype, fake.stride()) == (result.shape, result.dtype, result.stride())
    return results


@each_kind
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("biased", [True, False])
def test_dropout_add_norm(backend, dtype, p, biased):
    x, residual, grad = torch.randn(3, 9, 24, dtype=torch.float64).to(dtype)
    gamma, beta, bias = torch.randn(3, 24, dtype=torch.promote_types(dtype, torch.float32))
    bias, random = bias if biased else None, (RNG, KEYS, OFFSETS, 3, p)
    _, statistics = told(OPS.dropout_add_norm, (x, residual, gamma, beta, bias, *random, 1e-12, backend))
    told(OPS.dropout_add_norm_backward, (grad, x, residual, gamma, bias, statistics, *random, backend))


@each_kind
def test_bias_gelu(backend, dtype):
    x, grad = torch.randn(2, 9, 24, dtype=torch.float64).to(dtype)
    bias = torch.randn(24, dtype=torch.promote_types(dtype, torch.float32))
    told(OPS.bias_gelu, (x, bias, backend))
    told(OPS.bias_gelu_backward, (grad, x, bias, backend))


@each_kind
def test_attention(backend, dtype):
    rest = (OFFSETS, None, RNG, KEYS, 3, 0.1, 0.125, backend)
    qkv, grad = (torch.randn(9, *shape, dtype=torch.float64).to(dtype) for shape in ((3, 2, 16), (2, 16)))
    out, lse = told(OPS.attention, (qkv, *rest))
    told(OPS.attention_backward, (grad, out, lse, qkv, *rest))


@each_kind
def test_cross_attention(backend, dtype):
    rest = (torch.tensor([0, 2, 2, 5], dtype=torch.int32), OFFSETS, None, RNG, KEYS, 3, 0.1, 0.125, backend)
    q, kv, grad = (torch.randn(*s, dtype=torch.float64).to(dtype) for s in ((5, 2, 16), (9, 2, 2, 16), (5, 2, 16)))
    out, lse = told(OPS.cross_attention, (q, kv, *rest))
    told(OPS.cross_attention_backward, (grad, out, lse, q, kv, *rest))


@each_kind
def test_separable_attention(backend, dtype):
    wide, grid = torch.promote_types(dtype, torch.float32), (1, 2, 3)
    queries, pixels = torch.randn(5, 11, dtype=wide), torch.randn(3, 6, 4, dtype=torch.float64).to(dtype)
    shift, scale = torch.rand(2, 3, 6, dtype=wide)
    operands = (queries, pixels, shift, scale, RNG, KEYS, *grid, 3, 0.1, backend)
    outputs = told(OPS.separable_attention, operands)
    told(OPS.separable_attention_backward, (*map(torch.ones_like, outputs), *outputs, *operands))


@pytest.mark.parametrize(
    ("backend", "dtype", "table"),
    [
        ("reference", torch.float64, torch.float64),
        ("reference", torch.float64, torch.float32),
        ("reference", torch.float32, torch.float64),
        ("reference", torch.bfloat16, torch.float32),
        ("cpu", torch.float32, torch.float32),
        ("cpu", torch.bfloat16, torch.float32),
    ],
)
@pytest.mark.parametrize("lacking", [None, "visual", "speech"])
def test_embed(backend, dtype, table, lacking):
    given = operands([(2, 3, 4), (1, 2, 0)], width=16, dtype=dtype, table=table)
    if lacking:
        given |= {"offsets": given["offsets"] - given[lacking].offsets, lacking: None}
    arguments = flat(given, 0.1, backend, int(given["offsets"][-1]))
    out, statistics = told(OPS.embed, arguments)
    told(OPS.embed_backward, (torch.randn_like(out), statistics, *arguments))

import pytest
import torch
import torch.nn.functional as F
from error_rule import assert_within_rule

from memofast.ops import bias_gelu, bias_gelu_reference


def batch(rows, width, dtype=torch.float32, bias=torch.float32, spread=2.0):
    generator = torch.Generator().manual_seed(rows + width)
    x, grad = torch.randn(2, rows, width, generator=generator).to(dtype).unbind()
    return x * spread, torch.randn(width, generator=generator).to(bias), grad


def run(function, x, bias, grad, **options):
    leaves = [t.detach().clone().requires_grad_() for t in (x, bias)]
    out = function(*leaves, **options)
    out.backward(grad.to(out))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def plain(x, bias):
    """What PyTorch does in the compute type."""
    return F.gelu(x + bias.to(x.dtype))


def check(got, ordinary, exact):
    """Within the rule; the gradient of the bias is a sum over rows."""
    assert_within_rule(got[:2], ordinary[:2], exact[:2], tiny=1e-7)
    assert_within_rule(*({"bias": of[2]} for of in (got, ordinary, exact)), of_sums=True)


@pytest.mark.parametrize(
    ("rows", "width"),
    [(1, 1000), (1, 40), (15, 7), (63, 384), (64, 1), (64, 768), (129, 40), (129, 768), (160, 1), (160, 1000)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [torch.float32, "same"])
def test_matches_reference(rows, width, dtype, bias, poisoned_memory):
    x, shift, grad = batch(rows, width, dtype, dtype if bias == "same" else bias)
    got = run(bias_gelu, x, shift, grad, backend="cpu")
    exact = run(bias_gelu_reference, x.double(), shift.double(), grad)
    assert [t.dtype for t in got] == [dtype, dtype, shift.dtype]
    check(got, run(plain, x, shift, grad), exact)


def test_whole_range():
    """Every magnitude, tails, infinities and NaN."""
    x = torch.linspace(-20, 20, 200_001)[:, None]
    bias, grad = torch.zeros(1), torch.ones_like(x)
    got = run(bias_gelu, x, bias, grad, backend="cpu")
    exact = run(bias_gelu_reference, x.double(), bias.double(), grad)
    assert_within_rule(got[:2], run(plain, x, bias, grad)[:2], exact[:2], tiny=1e-7)
    near = x.abs() < 5  # beyond, 1 + erf cancels in fp64 too
    assert ((got[0].double() - exact[0]).abs() <= 1e-5 * exact[0].abs())[near].all()  # no cancellation in the tail
    odd = torch.tensor([float("inf"), float("nan"), 3e38, -3e38, 0.0])[:, None]
    value, slope, _ = run(bias_gelu, odd, bias, torch.ones_like(odd), backend="cpu")
    assert value[0] == float("inf") and value[1].isnan() and slope[1].isnan()
    assert value[2] == odd[2] and value[3].abs() < 1e-30 and value[4] == 0
    torch.testing.assert_close(slope[[0, 2, 3, 4], 0], torch.tensor([1.0, 1.0, 0.0, 0.5]))


def test_whole_range_bf16():
    """Errors stay below what rounding to bf16 loses near zero, and nothing is left of the tails."""
    x = torch.linspace(-20, 20, 40_001).bfloat16().unique()[:, None]
    bias, grad = torch.zeros(1), torch.ones_like(x)
    value, slope, _ = run(bias_gelu, x, bias, grad, backend="cpu")
    exact = run(bias_gelu_reference, x.double(), bias.double(), grad)
    half_ulp = 2.0**-8
    assert ((value.double() - exact[0]).abs() <= half_ulp * exact[0].abs() + 2e-5).all()
    assert ((slope.double() - exact[1]).abs() <= half_ulp * exact[1].abs() + 6e-5).all()
    near = (x.abs() < 0.1) & (x != 0)
    assert ((value.double() - exact[0]).abs() <= 1.2 * half_ulp * exact[0].abs())[near].all()
    assert not value[x < -4.75].any() and torch.equal(value[x > 4.75], x[x > 4.75])
    assert (slope[x < -4.75].abs() < 1e-6).all() and (slope[x > 4.75] == 1).all()
    odd = torch.tensor([float("inf"), float("nan"), 3e38, -3e38, 0.0]).bfloat16()[:, None]
    value, slope, _ = run(bias_gelu, odd, bias, torch.ones_like(odd), backend="cpu")
    assert value[0] == float("inf") and value[1].isnan() and slope[1].isnan()
    assert torch.equal(value[2:], torch.tensor([odd[2].item(), 0.0, 0.0]).bfloat16()[:, None])


@pytest.mark.parametrize("shape", [(0, 40), (3, 0), (0, 0)])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_empty(shape, backend, poisoned_memory):
    x, bias, grad = batch(*shape)
    out, grad_x, grad_bias = run(bias_gelu, x, bias, grad, backend=backend)
    assert out.shape == grad_x.shape == shape and not grad_bias.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_repeatable(dtype):
    x, bias, grad = batch(500, 300, dtype)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(run(bias_gelu, x, bias, grad, backend="cpu"))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_reference_gradient():
    x, bias, _ = batch(5, 7)
    leaves = [t.double().requires_grad_() for t in (x, bias)]
    assert torch.autograd.gradcheck(lambda x, bias: bias_gelu(x, bias, backend="reference"), leaves)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend):
    x, bias, grad = batch(10, 24)
    torch.library.opcheck(torch.ops.memofast.bias_gelu.default, (x, bias, backend))
    torch.library.opcheck(torch.ops.memofast.bias_gelu_backward.default, (grad, x, bias, backend))
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.ops.memofast.bias_gelu(x.requires_grad_(), bias, backend)


def test_second_derivative_is_refused():
    x, bias, _ = batch(10, 24)
    out = bias_gelu(x.requires_grad_(), bias)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.autograd.grad(out.square().sum(), x, create_graph=True)


@pytest.mark.slow
def test_compile():
    x, bias, grad = batch(10, 24)

    def function(x, bias):
        return bias_gelu(x * 2, bias) + 1

    compiled = torch.compile(function, fullgraph=True)
    torch.testing.assert_close(run(compiled, x, bias, grad), run(function, x, bias, grad))


def test_refusals():
    x, bias, _ = batch(10, 24)
    cases = [
        ("x must be", (x.half(), bias), {}),
        ("x must have shape", (x[0], bias), {}),
        ("x must be contiguous", (x.mT.contiguous().mT, bias), {}),
        ("bias must have shape", (x, bias[:-1]), {}),
        ("bias must be", (x, bias.bfloat16()), {}),
        ("bias must be contiguous", (x, torch.zeros(48)[::2]), {}),
        ("not one of auto", (x, bias), {"backend": "torch"}),
        ("needs cuda tensors", (x, bias), {"backend": "cuda"}),
    ]
    for message, arguments, keywords in cases:
        with pytest.raises(ValueError, match=message):
            bias_gelu(*arguments, **keywords)
    with pytest.raises(ValueError, match=r"bias_gelu: bias must have shape \[24\], got \[23\]"):
        torch.ops.memofast.bias_gelu(x, bias[:-1], "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("width", [1, 7, 40, 384, 1000, 3072])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gpu(width, dtype):
    x, bias, grad = batch(129, width, dtype)
    got, again = (run(bias_gelu, x.cuda(), bias.cuda(), grad.cuda(), backend="cuda") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    exact = run(bias_gelu_reference, x.double(), bias.double(), grad)
    check([t.cpu() for t in got], run(plain, x, bias, grad), exact)

import pytest
import torch
import torch.nn.functional as F
from error_rule import assert_within_rule

from memofast.ops import dropout_add_norm, dropout_add_norm_reference, philox

LENGTHS = [1, 15, 16, 17, 33, 63, 100, 0, 129, 160, 0]
SITE = philox.site(1, philox.Place.ATTENTION_OUTPUT)


def batch(width, lengths=LENGTHS, dtype=torch.float32, bias=torch.float32, spare=3, seed=0):
    """Tensors (x, residual, gamma, beta, bias), gradient, and the keywords of a packed batch."""
    generator = torch.Generator().manual_seed(seed)
    rows = sum(lengths) + spare
    x, residual, grad = torch.randn(3, rows, width, generator=generator).to(dtype).unbind()
    gamma, beta, shift = torch.randn(3, width, generator=generator).unbind()
    offsets = torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(torch.int32)
    keys = torch.randint(-(2**63), 2**63 - 1, (len(lengths),), generator=generator)
    options = {"offsets": offsets, "rng": torch.tensor([17, 40]), "sample_keys": keys, "site": SITE}
    return [x, residual, gamma, beta, None if bias is None else shift.to(bias)], grad, options


def run(function, tensors, grad, **options):
    x, residual, gamma, beta, bias = leaves = [t if t is None else t.detach().clone().requires_grad_() for t in tensors]
    out = function(x, residual, gamma, beta, bias=bias, **options)
    out.backward(grad.to(out))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


def plain(x, residual, gamma, beta, *, bias, p, offsets, rng, sample_keys, site, eps=1e-12):
    """What PyTorch does in the compute type, with our mask."""
    keep = philox.hidden_keep_mask(rng, site, sample_keys, offsets, *x.shape, p)
    x = x if bias is None else x + bias.to(x.dtype)
    z = residual + x * keep / (1 - philox.drop_threshold(p) / 65536)
    out = F.layer_norm(z, z.shape[1:], gamma.to(z.dtype), beta.to(z.dtype), eps)
    return out * (torch.arange(out.shape[0]) < offsets[-1])[:, None]


@pytest.mark.parametrize("width", [1, 7, 40, 384, 768, 1000, 2000])
@pytest.mark.parametrize(
    ("dtype", "p", "bias"),
    [
        (torch.float32, 0.0, None),
        (torch.float32, 0.1, torch.float32),
        (torch.bfloat16, 0.0, "same"),
        (torch.bfloat16, 0.1, None),
        (torch.bfloat16, 0.1, torch.float32),
    ],
)
def test_matches_reference(width, dtype, p, bias, poisoned_memory):
    tensors, grad, options = batch(width, dtype=dtype, bias=dtype if bias == "same" else bias)
    tensors[0][-3:], tensors[1][-3:], grad[-3:] = float("nan"), float("nan"), float("nan")
    options |= {"p": p, "eps": 1e-3 if width == 1 else 1e-12}
    got = run(dropout_add_norm, tensors, grad, backend="cpu", **options)
    clean = [t if t is None else t.nan_to_num() for t in tensors]
    ordinary = run(plain, clean, grad.nan_to_num(), **options)
    wide = [t if t is None else t.double() for t in clean]
    exact = run(dropout_add_norm_reference, wide, grad.nan_to_num(), **options)
    assert got[0].dtype == got[1].dtype == got[2].dtype == dtype
    assert_within_rule(got, ordinary, exact, of_sums=True)
    assert not any(t[-3:].any() for t in got[:3])


def test_dropout_follows_the_mask():
    """The gradient of x is zero exactly where the mask drops, and the residual's times the scale elsewhere."""
    tensors, grad, options = batch(1000)
    _, grad_x, grad_residual, *_ = run(dropout_add_norm, tensors, grad, p=0.3, **options)
    keep = philox.hidden_keep_mask(options["rng"], SITE, options["sample_keys"], options["offsets"], *grad.shape, 0.3)
    torch.testing.assert_close(grad_x, grad_residual * keep * philox.keep_scale(0.3))
    later = options | {"rng": torch.tensor([17, 41])}
    assert not torch.equal(run(dropout_add_norm, tensors, grad, p=0.3, **later)[1], grad_x)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0], [1]])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_empty(lengths, backend, poisoned_memory):
    for spare in (0, 2):
        tensors, grad, options = batch(24, lengths, spare=spare)
        got = run(dropout_add_norm, tensors, grad, p=0.1, backend=backend, **options)
        assert not any(t[sum(lengths) :].any() for t in got[:3])
        assert all(t.isfinite().all() for t in got)


def test_without_offsets():
    tensors, grad, options = batch(40, spare=0)
    expected = run(dropout_add_norm, tensors, grad, **options)
    for got, wanted in zip(run(dropout_add_norm, tensors, grad), expected, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_repeatable(dtype):
    tensors, grad, options = batch(768, dtype=dtype)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(run(dropout_add_norm, tensors, grad, p=0.1, **options))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_batch_mates_do_not_matter():
    tensors, grad, options = batch(100)
    first, last = options["offsets"][5:7].tolist()
    together = run(dropout_add_norm, tensors, grad, p=0.2, **options)
    alone = [t[first:last] for t in tensors[:2]] + tensors[2:]
    options |= {
        "offsets": torch.tensor([0, last - first], dtype=torch.int32),
        "sample_keys": options["sample_keys"][5:6],
    }
    apart = run(dropout_add_norm, alone, grad[first:last], p=0.2, **options)
    assert all(torch.equal(a[first:last], b) for a, b in zip(together[:3], apart[:3], strict=True))


def test_reference_gradient():
    tensors, _, options = batch(9, [2, 0, 3], spare=1)
    leaves = [t.double().requires_grad_() for t in tensors]
    options |= {"p": 0.3, "backend": "reference", "eps": 1e-5}

    def function(x, residual, gamma, beta, bias):
        return dropout_add_norm(x, residual, gamma, beta, bias=bias, **options)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_opcheck(backend, p):
    (x, residual, gamma, beta, bias), grad, options = batch(24, [4, 0, 9])
    random = (options["rng"], options["sample_keys"], options["offsets"], SITE, p)
    forward = (x, residual, gamma, beta, bias, *random, 1e-12, backend)
    torch.library.opcheck(torch.ops.memofast.dropout_add_norm.default, forward)
    statistics = torch.ops.memofast.dropout_add_norm(*forward)[1]
    backward = (grad, x, residual, gamma, bias, statistics, *random, backend)
    torch.library.opcheck(torch.ops.memofast.dropout_add_norm_backward.default, backward)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.ops.memofast.dropout_add_norm(x.requires_grad_(), *forward[1:])


def test_second_derivative_is_refused():
    tensors, _, options = batch(24, [4, 0, 9])
    tensors[0].requires_grad_()
    out = dropout_add_norm(*tensors[:4], bias=tensors[4], p=0.1, **options)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.autograd.grad(out.square().sum(), tensors[0], create_graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_compile(p):
    tensors, grad, options = batch(24, [4, 0, 9])

    def function(x, *rest, **keywords):
        return dropout_add_norm(x * 2, *rest, p=p, **keywords) + 1

    compiled = torch.compile(function, fullgraph=True)
    expected = run(function, tensors, grad, **options)
    torch.testing.assert_close(run(compiled, tensors, grad, **options), expected)


def test_refusals():
    (x, residual, gamma, beta, bias), _, options = batch(24, [4, 5])
    offsets, keys, rng = options["offsets"], options["sample_keys"], options["rng"]
    full = {"p": 0.1, "rng": rng, "sample_keys": keys, "offsets": offsets}
    cases = [
        ("x must be", (x.half(), residual, gamma, beta), {}),
        ("x must have shape", (x[0], residual, gamma, beta), {}),
        ("x must be contiguous", (x.mT.contiguous().mT, residual, gamma, beta), {}),
        ("at least one channel", (x[:, :0], residual, gamma, beta), {}),
        ("residual must be", (x, residual.bfloat16(), gamma, beta), {}),
        ("residual must have shape", (x, residual[:-1], gamma, beta), {}),
        ("gamma must be", (x, residual, gamma.bfloat16(), beta), {}),
        ("beta must have shape", (x, residual, gamma, beta[:-1]), {}),
        ("bias must be", (x, residual, gamma, beta), {"bias": bias.half()}),
        ("needs rng, sample_keys and offsets", (x, residual, gamma, beta), {"p": 0.1}),
        ("rng must have shape", (x, residual, gamma, beta), full | {"rng": rng[:1]}),
        ("sample_keys must have shape", (x, residual, gamma, beta), full | {"sample_keys": keys[:1]}),
        ("offsets must be torch.int32", (x, residual, gamma, beta), {"offsets": offsets.long()}),
        ("offsets must have shape", (x, residual, gamma, beta), {"offsets": offsets[:0]}),
        ("offsets must start at 0", (x, residual, gamma, beta), {"offsets": offsets + 1}),
        ("offsets must start at 0", (x, residual, gamma, beta), {"offsets": offsets * 2}),
        ("probability", (x, residual, gamma, beta), full | {"p": 1.0}),
        ("keeps nothing", (x, residual, gamma, beta), full | {"p": 0.999999}),
        ("not one of auto", (x, residual, gamma, beta), {"backend": "triton"}),
        ("needs cuda tensors", (x, residual, gamma, beta), {"backend": "cuda"}),
    ]
    for message, arguments, keywords in cases:
        with pytest.raises(ValueError, match=message):
            dropout_add_norm(*arguments, **keywords)
    with pytest.raises(ValueError, match="offsets must start at 0"):
        dropout_add_norm(x, residual, gamma, beta, offsets=offsets + 1, backend="reference")


@pytest.mark.gpu
@pytest.mark.parametrize("width", [1, 7, 40, 384, 768, 1000, 1500, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_gpu(width, dtype, p):
    tensors, grad, options = batch(width, dtype=dtype)
    on_gpu = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    eps = 1e-3 if width == 1 else 1e-12
    leaves = [t.cuda() for t in tensors]
    got = run(dropout_add_norm, leaves, grad.cuda(), p=p, eps=eps, backend="cuda", **on_gpu)
    again = run(dropout_add_norm, leaves, grad.cuda(), p=p, eps=eps, backend="cuda", **on_gpu)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    ordinary = run(plain, tensors, grad, p=p, eps=eps, **options)
    exact = run(dropout_add_norm_reference, [t.double() for t in tensors], grad, p=p, eps=eps, **options)
    assert_within_rule([t.cpu() for t in got], ordinary, exact, of_sums=True)

"""Attention over the rows of a grid, against the same with every row made."""

import pytest
import torch
from error_rule import assert_within_rule

from memofast.ops import philox, separable_attention, separable_attention_reference
from memofast.ops.separable_attention import grid_rows, keep_mask

SITE = philox.site(0, philox.Place.ATTENTION)
# latents, pixels of a row, grid, samples
SHAPES = [
    (9, 48, (2, 4, 3), 2),
    (130, 5, (3, 5, 7), 1),
    (64, 48, (4, 9, 17), 3),
    (1, 1, (1, 1, 1), 2),
    (65, 30, (1, 3, 33), 1),
]


def batch(latents, width, grid, samples, dtype=torch.float32, seed=0):
    """Tensors (queries, pixels, shift, scale), gradients of what is gathered, and the keywords."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = grid[0] * grid[1] * grid[2], width + 1 + sum(grid)
    queries = torch.randn(latents, columns, generator=generator) * columns**-0.5
    pixels = torch.randn(samples, rows, width, generator=generator).to(dtype)
    shift, scale = torch.randn(samples, rows, generator=generator), torch.rand(samples, rows, generator=generator) + 0.5
    grads = [torch.randn(samples, latents, *end, generator=generator) for end in ((columns,), (), ())]
    keys = torch.randint(-(2**63), 2**63 - 1, (samples,), generator=generator)
    options = {"grid": grid, "rng": torch.tensor([17, 40]), "sample_keys": keys, "site": SITE}
    return [queries, pixels, shift, scale], grads, options


def run(function, tensors, grads, **options):
    queries, shift, scale = leaves = [tensors[i].detach().clone().requires_grad_() for i in (0, 2, 3)]
    gathered = function(queries, tensors[1], shift, scale, **options)
    torch.autograd.backward(list(gathered), [grad.to(out) for grad, out in zip(grads, gathered, strict=True)])
    names = ("out", "mass", "lse", "queries", "shift", "scale")
    return dict(zip(names, [*(out.detach() for out in gathered), *(leaf.grad for leaf in leaves)], strict=True))


def plain(queries, pixels, shift, scale, *, grid, p=0.0, rng=None, sample_keys=None, site=0):
    """What PyTorch does with rows in the type of the pixels, as a Perceiver makes them, in a softmax of fp32."""
    rows = (grid_rows(pixels, shift, grid) * scale[..., None]).to(pixels.dtype).float()
    scores = queries @ rows.mT
    used = scores.softmax(-1)
    if p:
        used = used * keep_mask(rng, site, sample_keys, *scores.shape[1:], p) / (1 - philox.drop_threshold(p) / 65536)
    return used @ rows, used.sum(-1), scores.logsumexp(-1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matches_reference(shape, p, dtype, poisoned_memory):
    tensors, grads, options = batch(*shape, dtype=dtype)
    got = run(separable_attention, tensors, grads, p=p, backend="cpu", **options)
    ordinary = run(plain, tensors, grads, p=p, **options)
    exact = run(separable_attention_reference, [t.double() for t in tensors], grads, p=p, **options)
    assert_within_rule(got, ordinary, exact, of_sums=True, tiny=2e-6)
    assert p or torch.allclose(got["mass"], torch.ones(()), atol=1e-6)


def test_reference_is_attention_over_rows():
    """By loops over one small grid: a row holds its pixels, its shift and its three places, times its scale."""
    (queries, pixels, shift, scale), _, options = batch(3, 2, (2, 1, 2), 1)
    rows = []
    for n, (t, h, w) in enumerate([(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]):
        places = [float(t == 0), float(t == 1), float(h == 0), float(w == 0), float(w == 1)]
        rows.append([float(scale[0, n]) * value for value in (*pixels[0, n].tolist(), float(shift[0, n]), *places)])
    rows = torch.tensor(rows)
    scores = queries @ rows.T
    got = separable_attention_reference(queries, pixels, shift, scale, options["grid"])
    torch.testing.assert_close(got.rows[0], scores.softmax(-1) @ rows)
    torch.testing.assert_close(got.lse[0], scores.exp().sum(-1).log())


def test_dropout_is_that_of_attention():
    """A dropped row gives nothing: with queries of one place each, its axis sums say which were kept."""
    tensors, _, options = batch(70, 3, (2, 3, 5), 2)
    tensors[0].zero_(), tensors[3].fill_(1.0)
    kept = separable_attention(*tensors, p=0.5, **options)
    keep = keep_mask(options["rng"], SITE, options["sample_keys"], 70, 30, 0.5)
    torch.testing.assert_close(kept.mass, keep.sum(-1) / 15.0)
    of_times = keep.view(2, 70, 2, 15).sum(-1) / 15.0
    torch.testing.assert_close(kept.rows[..., 4:6], of_times)
    later = options | {"rng": torch.tensor([17, 41])}
    assert not torch.equal(separable_attention(*tensors, p=0.5, **later).mass, kept.mass)


def test_a_mask_may_begin_anywhere():
    rng, keys = torch.tensor([3, 4]), torch.tensor([5, -6])
    whole = keep_mask(rng, SITE, keys, 7, 50, 0.4)
    assert torch.equal(keep_mask(rng, SITE, keys, 7, 29, 0.4, first=21), whole[..., 21:])


def test_large_scores(poisoned_memory):
    """The largest score of a row comes late, early or in between: sums are brought into its units."""
    for order in (torch.arange(60), 60 - torch.arange(60), (torch.arange(60) * 7) % 60):
        tensors, grads, options = batch(9, 3, (3, 4, 5), 1)
        tensors[2][0] = order * 3.0 - 90.0
        tensors[0][:, 3] = torch.linspace(-1, 1, 9)
        got = run(separable_attention, tensors, grads, **options)
        exact = run(separable_attention_reference, [t.double() for t in tensors], grads, **options)
        for name, value in exact.items():
            torch.testing.assert_close(got[name].double(), value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_empty(backend, poisoned_memory):
    tensors, grads, options = batch(5, 4, (1, 2, 3), 0)
    got = run(separable_attention, tensors, grads, backend=backend, **options)
    assert got["out"].shape == (0, 5, 11) and not got["queries"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_repeatable(dtype):
    tensors, grads, options = batch(300, 48, (3, 5, 9), 2, dtype=dtype)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(run(separable_attention, tensors, grads, p=0.1, **options))
    torch.set_num_threads(threads)
    assert all(torch.equal(results[0][name], other[name]) for other in results[1:] for name in results[0])


def test_batch_mates_do_not_matter():
    tensors, grads, options = batch(33, 10, (2, 3, 4), 3)
    together = run(separable_attention, tensors, grads, p=0.2, **options)
    alone = [tensors[0], *(t[1:2].contiguous() for t in tensors[1:])]
    options |= {"sample_keys": options["sample_keys"][1:2]}
    apart = run(separable_attention, alone, [g[1:2] for g in grads], p=0.2, **options)
    for name in ("out", "mass", "lse", "shift", "scale"):
        assert torch.equal(together[name][1:2], apart[name])


def test_reference_gradient():
    tensors, _, options = batch(3, 2, (2, 1, 3), 2)
    leaves = [t.double().requires_grad_() for t in tensors]
    options |= {"p": 0.3}
    assert torch.autograd.gradcheck(lambda *given: separable_attention_reference(*given, **options), leaves)
    leaves[1].requires_grad_(False)
    options["backend"] = "reference"
    assert torch.autograd.gradcheck(lambda *given: separable_attention(*given, **options), leaves)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_opcheck(backend, p):
    tensors, grads, options = batch(24, 6, (2, 3, 4), 2)
    rest = (options["rng"], options["sample_keys"], 2, 3, 4, SITE, p, backend)
    torch.library.opcheck(torch.ops.memofast.separable_attention.default, (*tensors, *rest))
    outputs = torch.ops.memofast.separable_attention(*tensors, *rest)
    backward = (*grads, *outputs, *tensors, *rest)
    torch.library.opcheck(torch.ops.memofast.separable_attention_backward.default, backward)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.ops.memofast.separable_attention(tensors[0].requires_grad_(), *tensors[1:], *rest)


def test_second_derivative_is_refused():
    tensors, _, options = batch(5, 4, (1, 2, 3), 1)
    tensors[0].requires_grad_()
    gathered = separable_attention(*tensors, **options)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.autograd.grad(gathered.rows.square().sum(), tensors[0], create_graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_compile(p):
    tensors, grads, options = batch(24, 6, (2, 3, 4), 2)

    def function(queries, *rest, **keywords):
        return [out + 1 for out in separable_attention(queries * 2, *rest, p=p, **keywords)]

    compiled = torch.compile(function, fullgraph=True)
    expected = run(function, tensors, grads, **options)
    torch.testing.assert_close(run(compiled, tensors, grads, **options), expected)


def test_refusals():
    (queries, pixels, shift, scale), _, options = batch(8, 6, (2, 3, 4), 2)
    grid, random = options["grid"], {"rng": options["rng"], "sample_keys": options["sample_keys"]}
    good = (queries, pixels, shift, scale)
    cases = [
        ("queries must have shape", (queries[:, :-1].contiguous(), *good[1:], grid), {}),
        ("queries must be torch.float32", (queries.bfloat16(), *good[1:], grid), {}),
        ("of 1 to 65536 latents", (queries[:0], *good[1:], grid), {}),
        ("pixels must be", (queries, pixels.half(), shift, scale, grid), {}),
        ("pixels must have shape", (queries, pixels[:, :-1].contiguous(), shift, scale, grid), {}),
        ("pixels must be contiguous", (queries, pixels.mT.contiguous().mT, shift, scale, grid), {}),
        ("pixels must be of 1 to", (queries, pixels[..., :0], shift, scale, grid), {}),
        ("shift must have shape", (queries, pixels, shift[:1], scale, grid), {}),
        ("scale must be", (queries, pixels, shift, scale.double(), grid), {}),
        ("grid must be three integers", (*good, (2, 12)), {}),
        ("grid must be three integers", (*good, (2, 0, 4)), {}),
        ("grid must be three integers", (*good, (2, 3, "4")), {}),
        ("needs rng and sample_keys", (*good, grid), {"p": 0.1}),
        ("rng must have shape", (*good, grid), random | {"p": 0.1, "rng": torch.zeros(1, dtype=torch.int64)}),
        ("sample_keys must have shape", (*good, grid), random | {"p": 0.1, "sample_keys": torch.zeros(1).long()}),
        ("probability", (*good, grid), random | {"p": 1.0}),
        ("not one of auto", (*good, grid), {"backend": "triton"}),
        ("needs cuda tensors", (*good, grid), {"backend": "cuda"}),
        ("get no gradient", (queries, pixels.clone().requires_grad_(), shift, scale, grid), {}),
    ]
    for message, arguments, keywords in cases:
        with pytest.raises(ValueError, match=message):
            separable_attention(*arguments, **keywords)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gpu(shape, dtype, p):
    tensors, grads, options = batch(*shape, dtype=dtype)
    on_gpu = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    given = [t.cuda() for t in tensors], [g.cuda() for g in grads]
    got = run(separable_attention, *given, p=p, backend="cuda", **on_gpu)
    again = run(separable_attention, *given, p=p, backend="cuda", **on_gpu)
    assert all(torch.equal(got[name], again[name]) for name in got)
    ordinary = run(plain, tensors, grads, p=p, **options)
    exact = run(separable_attention_reference, [t.double() for t in tensors], grads, p=p, **options)
    assert_within_rule({name: t.cpu() for name, t in got.items()}, ordinary, exact, of_sums=True, tiny=2e-6)

import os
import subprocess
import sys

import pytest
import torch

from memofast.ops import FeatureRows, TextRows, embed, embed_reference, philox
from memofast.ops.embed import BACKENDS, _embed, _embed_backward

SITE = philox.site(0, philox.Place.EMBEDDING)
ODD = [(1, 15, 16), (17, 33, 0), (63, 0, 0), (0, 0, 0), (5, 100, 63), (33, 1, 129), (1, 0, 160), (30, 64, 64)]
ONE_LONG = [(100, 129, 160)]
FAST = [backend for backend in BACKENDS if backend == "cpu"]
GRADIENTS = (
    "text.word",
    "text.position",
    "text.gamma",
    "text.beta",
    "types",
    *tuple(
        f"{name}.{field}"
        for name in ("visual", "speech")
        for field in ("projected", "mask", "position", "feature_gamma", "feature_beta", "gamma", "beta")
    ),
)


def offsets_of(lengths):
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(torch.int32)


def some_sources(lengths, generator):
    """A third of the rows masked, some reading another row of their sample, the rest themselves."""
    start = 0
    parts = []
    for n in lengths:
        own = torch.arange(n)
        other = torch.randint(max(n, 1), (n,), generator=generator)
        choice = torch.rand(n, generator=generator)
        rows = start + torch.where(choice < 0.2, other, own)
        parts.append(torch.where(choice > 0.7, -1, rows))
        start += n
    return torch.cat([torch.zeros(0, dtype=torch.int64), *parts]).to(torch.int32)


def operands(
    lengths=ODD, width=40, dtype=torch.float32, table=torch.float32, sources=True, seed=0, spare=0, device="cpu"
):
    """Everything `embed` takes for samples of these (text, visual, speech) lengths; `spare` unused rows per modality."""
    generator = torch.Generator().manual_seed(seed)
    columns = list(zip(*lengths, strict=True)) if lengths else [(), (), ()]

    def random(*shape, kind=table, shift=0.0):
        return (shift + torch.randn(*shape, generator=generator)).to(kind)

    def norm():
        return random(width, shift=1.0), random(width)

    rows = sum(columns[0]) + spare
    ids = torch.randint(60, (rows,), generator=generator, dtype=torch.int32)
    ids[sum(columns[0]) :] = 10**9
    text = TextRows(ids, offsets_of(columns[0]), random(60, width), random(170, width), *norm())

    def feature(own):
        source = some_sources(own, generator) if sources else None
        if sources:
            source = torch.cat((source, torch.arange(sum(own), sum(own) + spare, dtype=torch.int32)))
        projected = random(sum(own) + spare, width, kind=dtype)
        projected[sum(own) :] = float("nan")
        mask = random(width, kind=dtype) if sources else None
        return FeatureRows(projected, source, offsets_of(own), mask, random(170, width), *norm(), *norm())

    visual, speech = feature(columns[1]), feature(columns[2])
    keys = torch.randint(-(2**63), 2**63 - 1, (len(lengths),), generator=generator)
    joint = offsets_of([sum(sample) for sample in lengths])
    given = {"text": text, "types": random(3, width), "offsets": joint, "visual": visual, "speech": speech}
    given |= {"rng": torch.tensor([17, 40]), "sample_keys": keys}
    return move(given, lambda tensor: tensor.to(device)) | {"site": SITE, "dtype": dtype}


def move(given, change):
    def apply(value):
        if isinstance(value, tuple):
            return type(value)(*(apply(field) for field in value))
        return change(value) if isinstance(value, torch.Tensor) else value

    return {name: apply(value) for name, value in given.items()}


def cast(given, dtype):
    """The same operands with every floating tensor in `dtype`."""
    return move(given, lambda t: t.to(dtype) if t.is_floating_point() else t) | {"dtype": dtype}


def run(function, given, seed=5, **options):
    """Output and gradients by name."""
    leaves = {}

    def leaf(tensor):
        return tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor

    given = move(given, leaf)
    for name in GRADIENTS:
        owner, _, field = name.partition(".")
        value = given.get(owner)
        value = getattr(value, field) if field and value is not None else value
        if value is not None:
            leaves[name] = value
    out = function(**given, **options)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out)
    if not out.shape[0]:
        return {"out": out.detach()} | dict.fromkeys(leaves)
    return {"out": out.detach()} | dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), grad), strict=True))


def assert_within_rule(got, plain, exact):
    """Error at most 2x (output) and 3x (gradients) that of plain PyTorch in the same type."""
    for name, truth in exact.items():
        factor = 2 if name == "out" else 3
        scale = truth.abs().max() if truth.numel() else 0
        allowed = factor * (plain[name].double() - truth).abs().max() + 1e-6 * scale + 1e-6 if truth.numel() else 0
        error = (got[name].double() - truth).abs().max() if truth.numel() else 0
        assert error <= allowed, (name, float(error), float(allowed))


def assert_equal(one, other):
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("table", ["fp32", "compute"])
@pytest.mark.parametrize(("p", "sources"), [(0.0, True), (0.1, True), (0.1, False)])
@pytest.mark.parametrize("lengths", [ODD, ONE_LONG], ids=["odd", "one"])
def test_matches_reference(backend, dtype, table, p, sources, lengths, poisoned_memory):
    given = operands(
        lengths, 40 if lengths is ODD else 136, dtype, torch.float32 if table == "fp32" else dtype, sources, spare=3
    )
    got = run(embed, given, p=p, backend=backend)
    plain = run(embed_reference, cast(given, dtype), p=p)
    exact = run(embed_reference, cast(given, torch.float64), p=p)
    assert got["out"].dtype == dtype and got["text.word"].dtype == given["text"].word.dtype
    assert_within_rule(got, plain, exact)
    assert not got["out"][-9:].any() and not got["visual.projected"][-3:].any()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("width", [8, 20, 128, 768])
def test_widths(backend, width, poisoned_memory):
    given = operands([(5, 3, 0), (2, 4, 6)], width)
    got = run(embed, given, p=0.1, backend=backend)
    assert_within_rule(got, run(embed_reference, given, p=0.1), run(embed_reference, cast(given, torch.float64), p=0.1))


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("absent", [("visual",), ("speech",), ("visual", "speech")])
def test_absent_modality_equals_one_without_rows(backend, absent, poisoned_memory):
    lengths = [(7, 0 if "visual" in absent else 9, 0 if "speech" in absent else 4), (3, 0, 0)]
    given = operands(lengths)
    present = run(embed, given, p=0.2, backend=backend)
    got = run(embed, given | dict.fromkeys(absent), p=0.2, backend=backend)
    assert_equal(got, present)
    for name in absent:
        assert not present[f"{name}.gamma"].any() and not present[f"{name}.mask"].any()


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("lengths", [[], [(0, 0, 0)], [(1, 0, 0)]])
def test_empty_batches(backend, lengths, poisoned_memory):
    given = operands(lengths, spare=2)
    got = run(embed, given, p=0.1, backend=backend)
    assert got["out"].shape == (sum(map(sum, lengths)) + 6, 40)
    assert_within_rule(got, run(embed_reference, given, p=0.1), run(embed_reference, cast(given, torch.float64), p=0.1))
    assert embed(**operands([]), backend=backend).shape == (0, 40)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_packed_order_and_formulas(backend):
    given = operands([(2, 1, 2), (1, 2, 0)], sources=False)
    text, visual, speech, types = (given[name] for name in ("text", "visual", "speech", "types"))
    out = embed(**given, backend=backend)

    def norm(x, gamma, beta):
        return (x - x.mean()) / (x.var(correction=0) + 1e-12).sqrt() * gamma + beta

    def word(row, position):
        total = text.word[text.token_ids[row]] + text.position[position] + types[0]
        return norm(total, text.gamma, text.beta)

    def feature(own, kind, row, position):
        inner = norm(own.projected[row], own.feature_gamma, own.feature_beta)
        return norm(inner + own.position[position] + types[kind], own.gamma, own.beta)

    expected = [word(0, 0), word(1, 1), feature(visual, 1, 0, 0), feature(speech, 2, 0, 0), feature(speech, 2, 1, 1)]
    expected += [word(2, 0), feature(visual, 1, 1, 0), feature(visual, 1, 2, 1)]
    torch.testing.assert_close(out, torch.stack(expected))


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_source_reads_other_rows_and_the_mask(backend):
    given = operands([(1, 4, 0)], width=16)
    source = torch.tensor([1, 1, -1, 1], dtype=torch.int32)
    visual = given["visual"]._replace(source=source)
    copied = visual._replace(
        projected=torch.stack([visual.projected[1], visual.projected[1], visual.mask, visual.projected[1]]), source=None
    )
    assert torch.equal(
        embed(**given | {"visual": visual}, backend=backend), embed(**given | {"visual": copied}, backend=backend)
    )
    got, each = (run(embed, given | {"visual": own}, backend=backend) for own in (visual, copied))
    rows = each["visual.projected"]
    torch.testing.assert_close(got["visual.projected"][1], rows[[0, 1, 3]].sum(0))
    assert not got["visual.projected"][[0, 2, 3]].any()
    torch.testing.assert_close(got["visual.mask"], rows[2])


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_sample_does_not_depend_on_its_batch(backend):
    batch, alone = operands(ODD), operands(ODD)
    full = embed(**batch, p=0.1, backend=backend)
    for b, (t, v, s) in enumerate(ODD):
        t0, v0, s0 = (int(batch[name].offsets[b]) for name in ("text", "visual", "speech"))

        def only(own, first, count):
            source = own.source[first : first + count]
            source = torch.where(source >= 0, source - first, source).to(torch.int32)
            return own._replace(
                projected=own.projected[first : first + count], source=source, offsets=offsets_of([count])
            )

        alone |= {
            "text": batch["text"]._replace(token_ids=batch["text"].token_ids[t0 : t0 + t], offsets=offsets_of([t])),
            "visual": only(batch["visual"], v0, v),
            "speech": only(batch["speech"], s0, s),
            "offsets": offsets_of([t + v + s]),
            "sample_keys": batch["sample_keys"][b : b + 1],
        }
        first = int(batch["offsets"][b])
        assert torch.equal(embed(**alone, p=0.1, backend=backend), full[first : first + t + v + s])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeats_bitwise_with_any_number_of_threads(backend, dtype):
    given = operands(ODD * 20, dtype=dtype)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(embed, given, p=0.1, backend=backend))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_equal(results[0], other)


def test_gradcheck_of_reference():
    given = cast(operands([(2, 3, 1), (1, 0, 2)], width=8), torch.float64)
    given["text"] = given["text"]._replace(token_ids=given["text"].token_ids % 4, word=given["text"].word[:4])
    given = move(given, lambda t: t[:4].clone() if t.shape == (170, 8) else t)
    floats = []

    def collect(tensor):
        if tensor.is_floating_point():
            floats.append(tensor.requires_grad_())
        return tensor

    move(given, collect)

    def call(*values):
        values = iter(values)
        return embed_reference(**move(given, lambda t: next(values) if t.is_floating_point() else t), p=0.3)

    assert torch.autograd.gradcheck(call, floats)


def flat(given, p, backend, rows):
    none = (None,) * 9
    tensors = (*given["text"], given["types"], given["offsets"], *(given["visual"] or none), *(given["speech"] or none))
    return (*tensors, given["rng"], given["sample_keys"], rows, p, 1e-12, SITE, given["dtype"], backend)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("speech", [True, False])
def test_opcheck(backend, speech):
    given = operands([(2, 3, 4), (1, 2, 0)], width=16)
    if not speech:
        given |= {"speech": None, "offsets": given["text"].offsets + given["visual"].offsets}
    arguments = flat(given, 0.1, backend, 12)
    torch.library.opcheck(_embed, arguments)
    out, statistics = _embed(*arguments)
    torch.library.opcheck(_embed_backward, (torch.randn_like(out), statistics, *arguments))


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_compiles_whole(backend):
    given = operands([(2, 3, 4), (1, 2, 0)], width=16)
    compiled = torch.compile(lambda **options: embed(**options), fullgraph=True, backend="aot_eager")
    assert_equal(run(compiled, given, p=0.1, backend=backend), run(embed, given, p=0.1, backend=backend))


def test_raw_op_has_no_derivative():
    given = operands([(1, 1, 1)])
    given["types"].requires_grad_()
    with pytest.raises(RuntimeError, match="has no derivative"):
        _embed(*flat(given, 0.0, "reference", 3))


def replaced(name, **fields):
    return lambda given: given | {name: given[name]._replace(**{k: f(given[name]) for k, f in fields.items()})}


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("text", token_ids=lambda t: t.token_ids + 60), "text.token_ids must lie in"),
        (replaced("text", token_ids=lambda t: t.token_ids - 60), "text.token_ids must lie in"),
        (replaced("text", position=lambda t: t.position[:2]), "text.position has 2 rows, but a sample has 3"),
        (replaced("visual", position=lambda v: v.position[:3]), "visual.position has 3 rows, but a sample has 4"),
        (replaced("visual", source=lambda v: v.source * 0 + 99), "visual.source must lie in"),
        (replaced("visual", source=lambda v: v.source * 0 + 5), "visual.source must name rows of the same sample"),
        (replaced("speech", source=lambda s: s.source * 0 - 1, mask=lambda s: None), "speech.source must lie in"),
        (replaced("speech", offsets=lambda s: s.offsets.flip(0)), "speech.offsets must start at 0"),
        (replaced("speech", projected=lambda s: s.projected[:-1]), "speech.source must have shape"),
        (replaced("speech", gamma=lambda s: s.gamma[:-1]), "speech.gamma must have shape"),
        (replaced("text", word=lambda t: t.word.T.contiguous().T), "text.word must be contiguous"),
        (replaced("text", token_ids=lambda t: t.token_ids.long()), "text.token_ids must be torch.int32"),
        (lambda given: given | {"offsets": given["offsets"] * 2}, "offsets must be the sum"),
        (lambda given: given | {"rows": 3}, "rows must be at least"),
        (lambda given: given | {"rng": None}, "needs rng and sample_keys"),
        (lambda given: given | {"p": 1.0}, "dropout probability"),
        (lambda given: given | {"backend": "magic"}, "is not one of"),
    ],
)
def test_refuses_clearly(backend, change, message):
    given = {"backend": backend, "p": 0.1} | operands([(3, 4, 2), (2, 3, 1)])
    with pytest.raises(ValueError, match=message):
        embed(**change(given))


@pytest.mark.skipif(not FAST, reason="no compiled backend")
@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_instruction_sets(isa):
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "matches_reference and cpu or test_widths"]
    result = subprocess.run(command, env=os.environ | {"MEMOFAST_ISA": isa}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sources", [True, False])
def test_gpu_matches_reference(dtype, sources):
    given = operands(ODD, 768, dtype, sources=sources, spare=3, device="cuda")
    got = run(embed, given, p=0.1, backend="cuda")
    plain = run(embed_reference, cast(given, dtype), p=0.1)
    assert_within_rule(got, plain, run(embed_reference, cast(given, torch.float64), p=0.1))
    assert_equal(got, run(embed, given, p=0.1, backend="cuda"))

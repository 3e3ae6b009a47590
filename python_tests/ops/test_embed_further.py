"""Rows of `embed` that name their positions, and what further tables add to a token."""

from types import SimpleNamespace

import pytest
import torch
from embed_cases import (
    FAST,
    ODD,
    SITE,
    assert_equal,
    cast,
    every_backend,
    flat,
    further,
    move,
    offsets_of,
    operands,
    run,
)
from error_rule import assert_within_rule

from memofast.ops import backends, embed, embed_reference, library, philox
from memofast.ops.embed import _embed, _embed_backward, automatic_backend

SOME = {
    "all": {},
    "positions": {"added": False},
    "added": {"positions": ()},
    "speech": {"positions": ("speech",), "added": False},
    "text": {"positions": ("text",), "added": False},
}


@every_backend
@pytest.mark.parametrize(
    ("dtype", "table", "sources"),
    [(torch.float32, "fp32", True), (torch.bfloat16, "fp32", False), (torch.bfloat16, "compute", True)],
)
@pytest.mark.parametrize("some", SOME)
def test_further_matches_reference(backend, dtype, table, sources, some, poisoned_memory):
    table = torch.float32 if table == "fp32" else dtype
    given = further(operands(ODD, 40, dtype, table, sources, spare=3), **SOME[some])
    got = run(embed, given, p=0.1, backend=backend)
    plain = run(embed_reference, cast(given, dtype), p=0.1)
    exact = run(embed_reference, cast(given, torch.float64), p=0.1)
    assert_within_rule(got, plain, exact, of_sums=True)
    assert not got["out"][-9:].any() and not got["visual.projected"][-3:].any()
    assert ("text.added" in got) == (some in ("all", "added"))
    if "text.added" in got:
        assert got["text.added"].dtype is table and not got["text.added"][-3:].any()


@every_backend
@pytest.mark.parametrize("width", [8, 20, 129, 768])
def test_further_widths(backend, width, poisoned_memory):
    given = further(operands([(5, 3, 0), (2, 4, 6)], width))
    exact = run(embed_reference, cast(given, torch.float64), p=0.1)
    got = run(embed, given, p=0.1, backend=backend)
    assert_within_rule(got, run(embed_reference, given, p=0.1), exact, of_sums=True)


@every_backend
def test_formulas(backend):
    given = operands([(2, 1, 2), (1, 2, 0)], sources=False)
    given["text"] = given["text"]._replace(
        positions=torch.tensor([7, 0, 7], dtype=torch.int32), added=torch.randn(3, 40)
    )
    given["visual"] = given["visual"]._replace(positions=torch.tensor([3, 169, 0], dtype=torch.int32))
    text, visual, speech, types = (given[name] for name in ("text", "visual", "speech", "types"))

    def norm(x, gamma, beta):
        return (x - x.mean()) / (x.var(correction=0) + 1e-12).sqrt() * gamma + beta

    def word(row, position):
        total = text.word[text.token_ids[row]] + text.added[row] + text.position[position] + types[0]
        return norm(total, text.gamma, text.beta)

    def feature(own, kind, row, position):
        inner = norm(own.projected[row], own.feature_gamma, own.feature_beta)
        return norm(inner + own.position[position] + types[kind], own.gamma, own.beta)

    expected = [word(0, 7), word(1, 0), feature(visual, 1, 0, 3), feature(speech, 2, 0, 0), feature(speech, 2, 1, 1)]
    expected += [word(2, 7), feature(visual, 1, 1, 169), feature(visual, 1, 2, 0)]
    torch.testing.assert_close(embed(**given, backend=backend), torch.stack(expected))


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_own_places_and_zeros_keep_bitwise(backend, dtype):
    """Only what is added up in another order, the gradients of position tables, may differ in its last bits."""
    given = operands(ODD, dtype=dtype, spare=2)
    named = dict(given)
    for name in ("text", "visual", "speech"):
        own = given[name]
        _, place = philox.rows_of(own.offsets, len(own[0]))
        named[name] = own._replace(positions=place.to(torch.int32))
    named["text"] = named["text"]._replace(added=torch.zeros(len(given["text"].token_ids), 40))
    before, got = (run(embed, one, p=0.1, backend=backend) for one in (given, named))
    for name, values in before.items():
        if name.endswith(".position"):
            torch.testing.assert_close(got[name], values, rtol=1e-4, atol=1e-4)
            assert values.any()
        else:
            assert torch.equal(got[name], values), name


@every_backend
def test_gradients_are_added_bitwise_in_the_order_of_a_stable_sort(backend):
    """The gradient of what is added to a token is that of its word, position and type, row by row."""
    given = further(operands(ODD * 5, spare=2))
    got = run(embed, given, p=0.1, backend=backend)
    text, rows = given["text"], got["text.added"]
    end = int(text.offsets[-1])
    for name, ids in (("text.position", text.positions), ("text.word", text.token_ids)):
        expected = torch.zeros_like(got[name])
        for row in range(end):
            expected[ids[row]] += rows[row]
        assert torch.equal(got[name], expected)
    assert got["text.position"][:23].all() and not got["text.position"][23:].any()
    torch.testing.assert_close(got["types"][0], rows.sum(0), rtol=1e-3, atol=1e-3)


@every_backend
def test_a_position_counts_once_per_row_whatever_is_read(backend):
    """Rows that read one row, or the mask, at positions of their own; the other way round one position of many rows."""
    given = operands([(1, 4, 0)], width=16)
    source = torch.tensor([1, 1, -1, 1], dtype=torch.int32)
    positions = torch.tensor([5, 2, 2, 9], dtype=torch.int32)
    visual = given["visual"]._replace(source=source, positions=positions)
    contents = torch.stack([visual.projected[1], visual.projected[1], visual.mask, visual.projected[1]])
    copied = visual._replace(projected=contents, source=None)
    got, each = (run(embed, given | {"visual": own}, backend=backend) for own in (visual, copied))
    assert torch.equal(got["out"], each["out"])
    assert torch.equal(got["visual.position"], each["visual.position"])
    assert got["visual.position"].any(1).nonzero().flatten().tolist() == [2, 5, 9]
    rows = each["visual.projected"]
    torch.testing.assert_close(got["visual.projected"][1], rows[[0, 1, 3]].sum(0))
    torch.testing.assert_close(got["visual.mask"], rows[2])


@every_backend
def test_dropout_follows_the_row_within_the_sample(backend):
    given = further(operands(ODD))
    for name in ("text", "visual", "speech"):
        own = given[name]
        given[name] = own._replace(gamma=torch.zeros_like(own.gamma), beta=torch.ones_like(own.beta))
    out = embed(**given, p=0.3, backend=backend)
    mask = philox.hidden_keep_mask(given["rng"], SITE, given["sample_keys"], given["offsets"], *out.shape, 0.3)
    assert torch.equal(out, mask * torch.tensor(philox.keep_scale(0.3)))


@every_backend
def test_a_sample_may_be_longer_than_the_table(backend):
    given = further(operands([(6, 9, 1), (2, 0, 7)]), most=3)
    longer = embed(**given, backend=backend)
    for name in ("text", "visual", "speech"):
        given[name] = given[name]._replace(position=given[name].position[:3])
    assert torch.equal(embed(**given, backend=backend), longer)
    assert run(embed, given, backend=backend)["visual.position"].all()


@every_backend
@pytest.mark.parametrize("lengths", [[], [(0, 0, 0)], [(1, 0, 0)], [(0, 0, 2), (0, 0, 0)]])
def test_empty_batches(backend, lengths, poisoned_memory):
    given = further(operands(lengths, spare=2))
    got = run(embed, given, p=0.1, backend=backend)
    exact = run(embed_reference, cast(given, torch.float64), p=0.1)
    assert_within_rule(got, run(embed_reference, given, p=0.1), exact, of_sums=True)
    assert embed(**further(operands([])), backend=backend).shape == (0, 40)
    out, statistics = _embed(*flat(further(operands([])), 0.1, backend, 0))
    *_, added = _embed_backward(out, statistics, *flat(further(operands([])), 0.1, backend, 0))
    assert added.shape == (0, 40)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_further_repeats_bitwise_with_any_number_of_threads(backend, dtype):
    given = further(operands(ODD * 9, dtype=dtype))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(embed, given, p=0.1, backend=backend))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_equal(results[0], other)


@every_backend
def test_sample_does_not_depend_on_its_batch(backend):
    batch = further(operands(ODD, sources=False))
    full = embed(**batch, p=0.1, backend=backend)
    for b, lengths in enumerate(ODD):
        alone = dict(batch)
        for name, count in zip(("text", "visual", "speech"), lengths, strict=True):
            own, first = batch[name], int(batch[name].offsets[b])
            fields = ("token_ids", "added", "positions") if name == "text" else ("projected", "positions")
            cut = {field: getattr(own, field)[first : first + count] for field in fields}
            alone[name] = own._replace(offsets=offsets_of([count]), **cut)
        alone |= {"offsets": offsets_of([sum(lengths)]), "sample_keys": batch["sample_keys"][b : b + 1]}
        first = int(batch["offsets"][b])
        assert torch.equal(embed(**alone, p=0.1, backend=backend), full[first : first + sum(lengths)])


def test_gradcheck_of_reference_and_of_its_derivative():
    given = further(cast(operands([(2, 3, 1), (1, 0, 2)], width=8), torch.float64), most=3)
    given["text"] = given["text"]._replace(token_ids=given["text"].token_ids % 4, word=given["text"].word[:4])
    given = move(given, lambda t: t[:4].clone() if t.shape == (170, 8) else t)
    floats = []

    def collect(tensor):
        if tensor.is_floating_point():
            floats.append(tensor.requires_grad_())
        return tensor

    move(given, collect)
    for function, options in ((embed_reference, {}), (embed, {"backend": "reference"})):

        def call(*values, function=function, options=options):
            values = iter(values)
            named = move(given, lambda t: next(values) if t.is_floating_point() else t)
            return function(**named, p=0.3, **options)

        assert torch.autograd.gradcheck(call, floats, fast_mode=True)


@every_backend
@pytest.mark.parametrize(("some", "speech"), [("all", True), ("positions", False), ("added", False), ("text", True)])
def test_opcheck(backend, some, speech):
    given = further(operands([(2, 3, 4), (1, 2, 0)], width=16), **SOME[some])
    if not speech:
        given |= {"speech": None, "offsets": given["text"].offsets + given["visual"].offsets}
    arguments = flat(given, 0.1, backend, 12)
    torch.library.opcheck(_embed, arguments)
    out, statistics = _embed(*arguments)
    torch.library.opcheck(_embed_backward, (torch.randn_like(out), statistics, *arguments))


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [(backend, dtype) for backend in ("reference", *FAST) for dtype in (torch.float32, torch.bfloat16)]
    + [("reference", torch.float64)],
)
def test_compiles_whole(backend, dtype):
    given = further(operands([(2, 3, 4), (1, 2, 0)], width=16, dtype=dtype, table=dtype))
    compiled = torch.compile(lambda **options: embed(**options), fullgraph=True, backend="aot_eager")
    assert_equal(run(compiled, given, p=0.1, backend=backend), run(embed, given, p=0.1, backend=backend))


def test_only_added_asks_for_a_gradient():
    given = further(operands([(2, 3, 4), (1, 2, 0)], width=16))
    everything = run(embed, given, seed=3)["text.added"]
    leaf = given["text"].added.requires_grad_()
    out = embed(**given)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.autograd.grad(out, leaf, grad)[0], everything)


def changed(name, **fields):
    return lambda given: given | {name: given[name]._replace(**{k: f(given[name]) for k, f in fields.items()})}


@every_backend
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("text", positions=lambda t: t.positions + 165), r"text.positions must lie in \[0, 170\)"),
        (changed("text", positions=lambda t: t.positions - 23), "text.positions must lie in"),
        (changed("visual", position=lambda v: v.position[:2]), r"visual.positions must lie in \[0, 2\)"),
        (changed("speech", positions=lambda s: s.positions * 0 + 170), "speech.positions must lie in"),
        (changed("text", positions=lambda t: t.positions.long()), "text.positions must be torch.int32"),
        (changed("visual", positions=lambda v: v.positions[:-1]), r"visual.positions must have shape \[7\]"),
        (changed("speech", positions=lambda s: s.positions[None]), "speech.positions must have shape"),
        (changed("speech", positions=lambda s: s.positions.to("meta")), "speech.positions must be on cpu"),
        (changed("text", positions=lambda t: t.positions.repeat(2)[::2]), "text.positions must be contiguous"),
        (changed("text", added=lambda t: t.added[:-1]), r"text.added must have shape \[5, 40\]"),
        (changed("text", added=lambda t: t.added[:, :-1]), r"text.added must have shape \[5, 40\]"),
        (changed("text", added=lambda t: t.added.long()), "text.added must be .*float32.*got torch.int64"),
        (changed("text", added=lambda t: t.added.to("meta")), "text.added must be on cpu"),
        (changed("text", added=lambda t: t.added.T.contiguous().T), "text.added must be contiguous"),
    ],
)
def test_refuses_clearly(backend, change, message):
    given = {"backend": backend, "p": 0.1} | further(operands([(3, 4, 2), (2, 3, 1)]))
    embed(**given)
    with pytest.raises(ValueError, match=message):
        embed(**change(given))


@pytest.mark.parametrize("some", SOME)
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_kernels_of_gpus_refuse(backend, some):
    given = further(operands([(2, 3, 4), (1, 2, 0)], width=16), **SOME[some])
    with pytest.raises(ValueError, match=f"{backend!r} has no kernel for positions and added"):
        embed(**given, backend=backend)
    arguments = flat(given, 0.1, backend, 12)
    for call in (
        lambda: _embed(*arguments),
        lambda: _embed_backward(torch.ones(12, 16), torch.ones(12, 4), *arguments),
    ):
        with pytest.raises(ValueError, match="has no kernel for positions and added"):
            call()


def test_auto_takes_the_reference_on_a_gpu(monkeypatch):
    monkeypatch.setattr(backends, "_order", backends._installed(True, True))
    monkeypatch.setattr(backends, "_known", {0: "sm_90"})
    types = SimpleNamespace(dtype=torch.float32, shape=(3, 768), is_cpu=False, device=torch.device("cuda", 0))
    word = SimpleNamespace(dtype=torch.float32)
    assert automatic_backend(types, word, torch.bfloat16) == "cuda"
    assert automatic_backend(types, word, torch.bfloat16, further=True) == "reference"
    assert automatic_backend(torch.empty(3, 768), word, torch.bfloat16, further=True) == "cpu"


def test_debug_mode_checks_positions(monkeypatch):
    """What a kernel of a GPU would be given is checked by the same rule."""
    monkeypatch.setattr(library, "_debugging", True)
    given = further(operands([(3, 4, 2), (2, 3, 1)]))
    visual = given["visual"]._replace(positions=given["visual"].positions - 50)
    with pytest.raises(ValueError, match=r"visual.positions must lie in \[0, 170\)"):
        embed(**given | {"visual": visual}, backend="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gpu_takes_plain_pytorch(dtype):
    given = further(operands(ODD, 768, dtype, spare=3, device="cuda"))
    got = run(embed, given, p=0.1)
    assert_equal(got, run(embed, given, p=0.1, backend="reference"))
    plain = run(embed_reference, cast(given, dtype), p=0.1)
    assert_within_rule(got, plain, run(embed_reference, cast(given, torch.float64), p=0.1), of_sums=True)

"""embed in Triton against the reference: on a GPU, or by Triton's interpreter on the CPU (TRITON_INTERPRET=1)."""

import os
import subprocess
import sys

import pytest
import torch
from embed_cases import ODD, SITE, assert_equal, cast, flat, operands, run
from error_rule import assert_within_rule

from memofast.ops import embed, embed_reference, library, philox

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_device = pytest.mark.interpreted if INTERPRETED else pytest.mark.gpu
TYPES = [torch.float32, torch.bfloat16, torch.float16]
# the interpreter takes time by the row: as many as cross a block of 16 rows, or a chunk of 64, where that matters
FEW = [(2, 1, 0), (0, 0, 0), (1, 3, 2)] if INTERPRETED else [(5, 3, 0), (0, 0, 0), (2, 4, 6), (1, 17, 2)]
BLOCKS = (
    [(1, 3, 5), (6, 15, 0), (0, 0, 0), (5, 1, 2)] if INTERPRETED else [(1, 15, 16), (17, 33, 0), (0, 0, 0), (5, 1, 7)]
)
CHUNKS = [(5, 3, 0), (0, 0, 0), (1, 17, 2), (3, 46, 1)] if INTERPRETED else [*FEW, (9, 70, 1)]
UNEVEN = [(1, 15, 16), (17, 33, 0), (0, 0, 0), (1, 0, 65)] if INTERPRETED else ODD


@pytest.fixture(autouse=True)
def _takes_cpu_tensors(monkeypatch):
    """The interpreter runs kernels on tensors of the CPU, in every type of a GPU."""
    if INTERPRETED:
        monkeypatch.setattr(library, "require_device", lambda *_: None)
        exact = library.row_types
        monkeypatch.setattr(library, "row_types", lambda x, e: exact(x, e) if e else tuple(TYPES))


def few(lengths=FEW, width=40, *types, **options):
    """Operands on the device; position tables no longer than the samples need, as each row of a table costs the
    interpreter time."""
    given = operands(lengths, width, *types, device=DEVICE, **options)
    for number, name in enumerate(("text", "visual", "speech")):
        longest = max((sample[number] for sample in lengths), default=0)
        given[name] = given[name]._replace(position=given[name].position[: longest + 1])
    return given


def triton(given, **options):
    return run(embed, given, backend="triton", **options)


def assert_matches(given, p=0.1):
    """Within the error rule of plain PyTorch; the interpreter cuts bf16 off instead of rounding it, which doubles the
    error."""
    dtype = given["dtype"]
    got, plain = triton(given, p=p), run(embed_reference, cast(given, dtype), p=p)
    exact = run(embed_reference, cast(given, torch.float64), p=p)
    assert got["out"].dtype == dtype and got["text.word"].dtype == given["text"].word.dtype
    assert_within_rule(got, plain, exact, of_sums=True, doubled=INTERPRETED and dtype == torch.bfloat16)
    return got


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="runs this file")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:]


@on_device
@pytest.mark.parametrize(
    ("dtype", "table"), [*((dtype, torch.float32) for dtype in TYPES), *((dtype, dtype) for dtype in TYPES[1:])]
)
@pytest.mark.parametrize(("p", "sources"), [(0.0, True), (0.1, True), (0.1, False)])
def test_matches_reference(dtype, table, p, sources, poisoned_memory):
    of_type = (dtype, table) in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32))
    if INTERPRETED and not (of_type if (p, sources) == (0.1, True) else dtype == torch.float32):
        pytest.skip("a case of each type and of each option is enough in the interpreter, which is slow")
    given = few(BLOCKS, 40, dtype, table, sources, spare=3)
    got = assert_matches(given, p)
    assert not got["out"][-9:].any() and not got["visual.projected"][-3:].any()


@on_device
@pytest.mark.skipif(INTERPRETED, reason="takes the interpreter long; blocks and chunks are crossed below")
def test_odd_lengths(poisoned_memory):
    assert_matches(few(UNEVEN, 24, spare=3))


@on_device
@pytest.mark.parametrize("width", [1] if INTERPRETED else [1, 7, 8, 37, 259, 1021, 1024])
def test_widths(width, poisoned_memory):
    assert_matches(few(FEW, width))


@on_device
@pytest.mark.parametrize("absent", [("visual",), ("speech",), ("visual", "speech")])
def test_absent_modality_equals_one_without_rows(absent, poisoned_memory):
    lengths = [(3, 0 if "visual" in absent else 5, 0 if "speech" in absent else 4), (2, 0, 0)]
    given = few(lengths)
    present = triton(given, p=0.2)
    assert_equal(triton(given | dict.fromkeys(absent), p=0.2), present)
    for name in absent:
        assert not present[f"{name}.gamma"].any() and not present[f"{name}.mask"].any()


@on_device
@pytest.mark.parametrize("lengths", [[(1, 0, 0)]] if INTERPRETED else [[], [(0, 0, 0)], [(1, 0, 0)]])
def test_rows_of_no_sample(lengths, poisoned_memory):
    given = few(lengths, spare=17)
    inside = sum(map(sum, lengths))
    assert assert_matches(given)["out"].shape == (inside + 51, 40)
    longer = embed(**given, rows=100, backend="triton")
    assert longer.shape == (100, 40) and longer[:inside].all() and not longer[inside:].any()


@on_device
@pytest.mark.parametrize("lengths", [[], [(0, 0, 0)]])
def test_no_rows_at_all(lengths, poisoned_memory):
    arguments = flat(few(lengths), 0.1, "triton", 0)
    out, statistics = torch.ops.memofast.embed(*arguments)
    assert out.shape == (0, 40)
    for gradient in torch.ops.memofast.embed_backward(out, statistics, *arguments):
        assert not gradient.any()


@on_device
def test_dropout_follows_the_mask():
    """Without gamma and with beta 1 every row is the keep mask itself, bit for bit."""
    given = few([(5, 3, 0), (0, 0, 0), (2, 4, 6), (1, 17, 2)], 50, spare=2)
    for name in ("text", "visual", "speech"):
        own = given[name]
        given[name] = own._replace(gamma=torch.zeros_like(own.gamma), beta=torch.ones_like(own.beta))
    out = embed(**given, p=0.3, backend="triton")
    mask = philox.hidden_keep_mask(given["rng"], SITE, given["sample_keys"], given["offsets"], *out.shape, 0.3)
    assert torch.equal(out, mask * torch.tensor(philox.keep_scale(0.3), device=DEVICE))


@on_device
def test_gradients_of_a_source_that_many_rows_read():
    """Segments longer than a block of rows: of one word, and of one projected row; nothing reads the last one."""
    given = few([(16, 35, 0), (5, 0, 1)], 20)
    given["text"] = given["text"]._replace(token_ids=torch.full_like(given["text"].token_ids, 7))
    given["visual"] = given["visual"]._replace(source=torch.full_like(given["visual"].source, 3))
    got = assert_matches(given)
    assert got["text.word"].any(1).nonzero().tolist() == [[7]]
    assert got["visual.projected"].any(1).nonzero().tolist() == [[3]]


@on_device
@pytest.mark.parametrize("dtype", TYPES[:1] if INTERPRETED else TYPES)  # its order of sums is of no type
def test_bitwise_repeatable_in_any_batch(dtype):
    given = few(CHUNKS, 40, dtype)
    whole = triton(given, p=0.1)
    assert_equal(whole, triton(given, p=0.1))
    others = few(CHUNKS, 40, dtype)
    for name in ("text", "visual", "speech"):
        own, end = others[name], int(others[name].offsets[-2])
        cut = {"token_ids": own[0][:end]} if name == "text" else {"projected": own[0][:end], "source": own[1][:end]}
        others[name] = own._replace(offsets=own.offsets[:-1], **cut)
    others |= {"offsets": others["offsets"][:-1], "sample_keys": others["sample_keys"][:-1]}
    out = embed(**others, p=0.1, backend="triton")
    assert torch.equal(out, whole["out"][: out.shape[0]])


@on_device
def test_statistics_of_every_row(poisoned_memory):
    """Mean and 1 / deviation of the outer norm, then of the inner one, which words do not have."""
    given = few([(3, 2, 0), (0, 0, 4)], 24, sources=False, spare=2)
    _, statistics = torch.ops.memofast.embed(*flat(given, 0.0, "triton", 15))
    inner = torch.zeros(15, 2, device=DEVICE)
    for first, projected in ((3, given["visual"].projected[:2]), (5, given["speech"].projected[:4])):
        deviation = projected.var(1, correction=0).add(1e-12).sqrt()
        inner[first : first + len(projected)] = torch.stack((projected.mean(1), 1 / deviation), 1)
    torch.testing.assert_close(statistics[:, 2:], inner)
    assert statistics[:9, :2].all() and not statistics[9:].any()


@on_device
def test_refuses_wide_rows():
    with pytest.raises(ValueError, match="at most 1024 channels"):
        embed(**operands([(2, 1, 1)], 1025, device=DEVICE), backend="triton")


@on_device
def test_debug_mode_names_bad_indices(monkeypatch):
    monkeypatch.setattr(library, "_debugging", True)
    given = few()
    text = given["text"]._replace(token_ids=given["text"].token_ids + 60)
    with pytest.raises(ValueError, match="token_ids must lie in"):
        embed(**given | {"text": text}, backend="triton")


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs on the CPU")
def test_needs_a_gpu():
    with pytest.raises(ValueError, match="needs cuda tensors"):
        embed(**operands(FEW), backend="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sources", [True, False])
def test_gpu_matches_cuda(dtype, sources):
    """Two implementations of one rule: the same elements dropped, gradients as close as their roundings allow."""
    given = operands(ODD, 768, dtype, sources=sources, spare=3, device="cuda")
    ours, theirs = assert_matches(given), run(embed, given, p=0.1, backend="cuda")
    assert torch.equal(ours["out"] == 0, theirs["out"] == 0)
    tolerance = 8 * torch.finfo(dtype).eps
    for name, values in theirs.items():
        scale = values.double().abs().max().item()
        torch.testing.assert_close(ours[name], values, atol=tolerance * scale, rtol=tolerance, msg=name)


@pytest.mark.gpu
def test_auto_prefers_cuda_kernels():
    given = operands(FEW, 64, torch.bfloat16, device="cuda")
    assert torch.equal(embed(**given, p=0.1), embed(**given, p=0.1, backend="cuda"))


@pytest.mark.gpu
def test_compile_fullgraph():
    given = few()
    compiled = torch.compile(embed, fullgraph=True)
    assert_equal(run(compiled, given, p=0.1, backend="triton"), triton(given, p=0.1))


@pytest.mark.gpu
@pytest.mark.parametrize("absent", [("speech",), ()])
def test_opcheck(absent):
    given = few([(2, 3, 0), (0, 0, 0)], 24, spare=1) | dict.fromkeys(absent)
    arguments = flat(given, 0.1, "triton", 8)
    torch.library.opcheck(torch.ops.memofast.embed.default, arguments)
    out, statistics = torch.ops.memofast.embed(*arguments)
    torch.library.opcheck(torch.ops.memofast.embed_backward.default, (out, statistics, *arguments))


@pytest.mark.gpu
def test_graph_replay_draws_anew():
    """Captured launches read ids, offsets and the update number at every replay."""
    given = operands([(3, 9, 4), (20, 1, 7)], 40, device="cuda")
    arguments = flat(given, 0.1, "triton", 44)
    grad = torch.randn(44, 40, device="cuda")

    def both():
        out, statistics = torch.ops.memofast.embed(*arguments)
        return out, *torch.ops.memofast.embed_backward(grad, statistics, *arguments)

    both()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = both()
    given["rng"] += 1
    given["text"].token_ids.copy_(given["text"].token_ids.flip(0))
    graph.replay()
    for replayed, eager in zip(results, both(), strict=True):
        assert torch.equal(replayed, eager)

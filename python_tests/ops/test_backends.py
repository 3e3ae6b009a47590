"""The table of backends that `auto` takes, and how it is read."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from memofast import _C
from memofast.ops import attention, backends
from memofast.ops.attention import automatic_backend
from memofast.ops.embed import automatic_backend as automatic_backend_of_embed

DEVICES = ["cpu", "before_sm_80", "sm_80", "sm_90", "sm_100", "other"]


@pytest.mark.parametrize("operator", backends.TABLE)
def test_rows(operator):
    known = importlib.import_module(f"memofast.ops.{operator}").BACKENDS
    rows = backends.TABLE[operator]
    assert list(rows) == DEVICES
    for row in rows.values():
        assert set(row.backends) <= set(known)
        assert row.backends[-1] in ("cpu", "torch", "reference")  # what every installation has
        measured = row.date[:2] == "20" and row.command.startswith("pytest bench")
        assert measured or (row.date, row.command) == ("not measured", "chosen by design")


def pretend(monkeypatch, capability):
    """One GPU beneath `torch.cuda.get_device_properties`, which itself stays PyTorch's. Returns a list of who asked
    for it."""
    named = hasattr(torch._C, "_CudaDeviceProperties")  # else the type is an empty stand-in
    facts = SimpleNamespace() if named else object.__new__(torch.cuda._CudaDeviceProperties)
    facts.major, facts.minor = capability
    asked = []
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_get_device_properties", lambda i: asked.append(i) or facts, raising=False)
    return asked


@pytest.fixture
def gpu(monkeypatch):
    """`gpu(capability, cuda, triton)`: the tensor of a made-up GPU, for an installation with these kernels."""

    def tensor(capability, cuda=True, triton=True, width=64, dtype=torch.bfloat16):
        asked = pretend(monkeypatch, capability)
        monkeypatch.setattr(backends, "_order", backends._installed(cuda, triton))
        monkeypatch.setattr(backends, "_known", {})
        device = torch.device("cuda", 0)
        return SimpleNamespace(dtype=dtype, is_cpu=False, device=device, shape=(5, 3, 1, width), asked=asked)

    return tensor


@pytest.mark.parametrize(
    ("capability", "options", "attention", "mask"),
    [
        ((7, 5), {}, "torch", "reference"),
        ((8, 0), {}, "cuda", "cuda"),
        ((8, 9), {}, "cuda", "cuda"),
        ((9, 0), {}, "cuda", "cuda"),
        ((12, 0), {}, "cuda", "cuda"),
        ((9, 0), {"cuda": False}, "triton", "triton"),
        ((9, 0), {"cuda": False, "triton": False}, "torch", "reference"),
        ((9, 0), {"width": 40}, "triton", "cuda"),
        ((9, 0), {"width": 256}, "torch", "cuda"),
        ((9, 0), {"dtype": torch.float64}, "reference", "reference"),
    ],
)
def test_choice_on_a_gpu(gpu, capability, options, attention, mask):
    tensor = gpu(capability, **options)
    assert automatic_backend(tensor) == attention
    assert backends.automatic("span_mask", tensor) == mask


@pytest.mark.parametrize(
    ("capability", "options", "word", "expected"),
    [
        ((7, 5), {}, torch.float32, "reference"),
        ((8, 6), {}, torch.float32, "cuda"),
        ((9, 0), {}, torch.bfloat16, "cuda"),
        ((10, 0), {"width": 1024}, torch.float32, "cuda"),
        ((9, 0), {}, torch.float16, "triton"),
        ((9, 0), {}, torch.float64, "reference"),
        ((9, 0), {"width": 1032}, torch.float32, "reference"),
        ((8, 0), {"cuda": False}, torch.float32, "triton"),
        ((12, 0), {"cuda": False, "width": 1024}, torch.bfloat16, "triton"),
        ((9, 0), {"cuda": False, "width": 1032}, torch.float32, "reference"),
        ((9, 0), {"triton": False}, torch.float16, "reference"),
    ],
)
def test_embed_on_a_gpu(gpu, capability, options, word, expected):
    types = gpu(capability, **{"dtype": torch.float32} | options)
    assert automatic_backend_of_embed(types, SimpleNamespace(dtype=word), torch.bfloat16) == expected


def test_the_device_is_asked_once(gpu):
    tensor = gpu((9, 0))
    for operator in backends.TABLE:
        backends.automatic(operator, tensor)
    assert len(tensor.asked) == 1


@pytest.mark.parametrize("operator", backends.TABLE)
def test_choice_elsewhere(operator):
    assert backends.automatic(operator, torch.zeros(1)) == "cpu"
    assert backends.automatic(operator, torch.zeros(1, dtype=torch.float64)) == "reference"
    assert backends.automatic(operator, torch.zeros(1, device="meta")) == backends.TABLE[operator]["other"].backends[0]


@pytest.mark.skipif(
    hasattr(torch._C, "_CudaDeviceProperties"), reason="no GPU can be made up where PyTorch knows real ones"
)
def test_the_choice_is_a_constant_to_a_tracer(monkeypatch):
    pretend(monkeypatch, (9, 0))
    graphs = []

    @torch.compile(fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph)
    def choose(x):
        return x + backends.TABLE["embed"][backends._generation(torch.device("cuda", 0))].backends.index("triton")

    assert choose(torch.ones(1)) == 2 and not backends._known
    assert [node.op for node in graphs[0].graph.nodes] == ["placeholder", "call_function", "output"]


def test_the_choice_compiles():
    qkv, offsets = torch.randn(3, 3, 1, 8), torch.tensor([0, 3], dtype=torch.int32)
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    assert torch.equal(compiled(qkv, offsets), attention(qkv, offsets))


@pytest.mark.gpu
@pytest.mark.skipif(not _C.cuda_version, reason="built without CUDA kernels")
def test_choice_of_this_gpu():
    wanted = "cuda" if torch.cuda.get_device_capability() >= (8, 0) else "torch"
    qkv = torch.zeros(3, 3, 1, 64, device="cuda")
    assert automatic_backend(qkv) == wanted
    offsets = torch.tensor([0, 3], dtype=torch.int32, device="cuda")
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    assert torch.equal(compiled(qkv, offsets), attention(qkv, offsets))

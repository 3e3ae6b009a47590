"""The table of backends that `auto` takes, and how it is read."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from memofast import _C
from memofast.ops import attention, backends
from memofast.ops.attention import automatic_backend

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


@pytest.fixture
def gpu(monkeypatch):
    """`gpu(capability, cuda, triton)`: the tensor of a made-up GPU, for an installation with these kernels."""

    def tensor(capability, cuda=True, triton=True, width=64, dtype=torch.bfloat16):
        asked = []
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
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


def test_the_choice_compiles(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))

    @torch.compile(fullgraph=True, backend="eager")
    def choose(x):
        return x + backends.TABLE["embed"][backends._generation(torch.device("cuda", 0))].backends.index("cuda")

    assert choose(torch.ones(1)) == 1 and not backends._known
    qkv, offsets = torch.randn(3, 3, 1, 8), torch.tensor([0, 3], dtype=torch.int32)
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    assert torch.equal(compiled(qkv, offsets), attention(qkv, offsets))


@pytest.mark.gpu
@pytest.mark.skipif(not _C.cuda_version, reason="built without CUDA kernels")
def test_choice_of_this_gpu():
    wanted = "cuda" if torch.cuda.get_device_capability() >= (8, 0) else "torch"
    assert automatic_backend(torch.zeros(3, 3, 1, 64, device="cuda")) == wanted

"""CUDA kernels built for each architecture, without a GPU: hot ones keep everything in registers."""

import importlib.util
import sys
from pathlib import Path

import pytest

from memofast import _C

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "kernel_resources.py"
HOT = {"attention_forward", "attention_backward", "dropout_add_norm", "bias_gelu", "embed"}


@pytest.fixture
def kernel_resources(csrc):
    spec = importlib.util.spec_from_file_location("kernel_resources", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(rows, architectures):
    assert {row.source for row in rows} >= HOT and {row.arch for row in rows} == set(architectures)
    assert not [row for row in rows if row.source in HOT and (row.spilled or row.stack)]


@pytest.mark.slow
def test_hot_kernels_spill_nothing(kernel_resources, capsys):
    """Of the extension that is tested, or compiled anew where that was built without CUDA."""
    if _C.cuda_archs:
        if kernel_resources.find_cuobjdump() is None:
            pytest.skip("no cuobjdump")
        rows, architectures = kernel_resources.of_extension(Path(_C.__file__)), _built()
    elif kernel_resources.find_nvcc() is None:
        pytest.skip("no nvcc")
    else:
        rows, architectures = kernel_resources.measure(), kernel_resources.ARCHITECTURES
    with capsys.disabled():
        print("\n" + kernel_resources.table(rows), file=sys.stderr)
    check(rows, architectures)


def _built() -> list[str]:
    return [f"sm_{arch}" for arch in _C.cuda_archs.replace(",", ";").split(";")]

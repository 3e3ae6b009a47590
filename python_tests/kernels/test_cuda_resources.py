"""CUDA kernels compiled for each architecture, without a GPU: hot ones keep everything in registers."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "kernel_resources.py"
HOT = {"attention_forward", "attention_backward", "dropout_add_norm", "bias_gelu", "embed"}


@pytest.mark.slow
def test_hot_kernels_spill_nothing(csrc, capsys):
    spec = importlib.util.spec_from_file_location("kernel_resources", SCRIPT)
    kernel_resources = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernel_resources)
    if kernel_resources.find_nvcc() is None:
        pytest.skip("no nvcc")
    rows = kernel_resources.measure()
    with capsys.disabled():
        print("\n" + kernel_resources.table(rows))
    assert {row.source for row in rows} >= HOT and {row.arch for row in rows} == set(kernel_resources.ARCHITECTURES)
    assert not [row for row in rows if row.source in HOT and (row.spilled or row.stack)]

"""bf16 products on CPUs that have instructions for them and on others, and their memory over ever new sizes."""

import subprocess
import sys
import warnings

import pytest
import torch

from memofast import devices
from memofast.cpu import bf16_units
from memofast.errors import MemofastWarning

GROWTH = """
import resource, torch
from memofast.cpu import limit_compiled_products
limit_compiled_products()
weight = torch.randn(1024, 256, dtype=torch.bfloat16)
def peak(rows):
    for n in rows:
        torch.nn.functional.linear(torch.randn(n, 256, dtype=torch.bfloat16), weight)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak(range(900, 1100))
print(peak(range(1100, 1300)) - before)
"""


@pytest.mark.parametrize("units", ["", "AMX"])
def test_bf16_without_instructions_for_it_is_told(monkeypatch, units):
    monkeypatch.setattr(devices, "bf16_units", lambda: units)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = [devices.precision_on(name, torch.device("cpu")) for name in ("auto", "fp32", "bf16")]
        assert devices.precision_on("bf16", torch.device("cuda")) == "bf16"
    assert found == ["bf16" if units else "fp32", "fp32", "bf16"]
    assert [warning.category for warning in told] == ([] if units else [MemofastWarning])


@pytest.mark.slow
@pytest.mark.skipif(not bf16_units(), reason="this CPU has no bf16 matrix instructions")
def test_memory_does_not_grow_with_every_new_number_of_rows():
    line = [sys.executable, "-c", GROWTH]
    megabytes = int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    assert megabytes < 30

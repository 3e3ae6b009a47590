"""Memory of bf16 products over batches of ever new sizes."""

import subprocess
import sys

import pytest

from memofast.cpu import bf16_units

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


@pytest.mark.slow
@pytest.mark.skipif(not bf16_units(), reason="this CPU has no bf16 matrix instructions")
def test_memory_does_not_grow_with_every_new_number_of_rows():
    line = [sys.executable, "-c", GROWTH]
    megabytes = int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    assert megabytes < 30

"""Every instruction set that the kernels are built for computes what the references do, each in a process of its
own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memofast import _C

ORDER = ["portable", "avx2", "avx512"]
COMPARISONS = (
    "matches_reference or equals_reference or equal_packed or equals_packed or bitwise or dropout_follows or known "
    "or whole_range or widths"
)
# plain PyTorch is no kernel of ours: it computes the same with every set
THE_SAME = "gpu or compile or torch] or reference]"


@pytest.mark.slow
@pytest.mark.parametrize("isa", ORDER)
def test_comparisons_pass(isa):
    if isa == _C.isa:
        pytest.skip(f"{isa} is in use, so that the comparisons themselves test it")
    if ORDER.index(isa) > ORDER.index(_C.isa):
        pytest.skip(f"this CPU has no {isa}, or MEMOFAST_ISA forbids it")
    selection = f"({COMPARISONS}) and not ({THE_SAME})"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).parent),
        "-k",
        selection,
    ]
    result = subprocess.run(command, env=os.environ | {"MEMOFAST_ISA": isa}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:]

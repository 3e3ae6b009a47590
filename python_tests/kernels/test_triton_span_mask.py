"""The Triton kernels without a GPU, run by Triton's interpreter."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

INTERPRETED = """
import itertools, torch
from memofast.ops import MaskedRows, SpanPolicy, span_mask_reference
from memofast.ops.span_mask import parameters_of

POLICIES = [
    SpanPolicy(), SpanPolicy(ratio=(1, 2), length=2, original=True), SpanPolicy(ratio=(1, 4), dice=True),
    SpanPolicy("independent"), SpanPolicy("independent", ratio=(0, 1)),
    SpanPolicy("single_span", ratio=(3, 10)), SpanPolicy("single_span", ratio=(9, 10), original=True),
    SpanPolicy("mixed", length=6, dice=True),
]
ODD = [0, 1, 2, 3, 15, 17, 63, 129, 0]
rng, site = torch.tensor([-(2**40) + 5, 2**35 + 17]), 1 << 20
for (number, policy), lengths in itertools.product(enumerate(POLICIES), (ODD, [], [0, 0])):
    offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    keys = (torch.arange(len(lengths)) - 3) * 0x9E3779B97F4A7C1
    selected = torch.arange(len(lengths)) % 3 != 1 if number % 2 else None
    rows = sum(lengths) + 5
    for capacity in (7, 512) if number == 0 else (512,):
        parameters = [*parameters_of(policy, 3, site)]
        ours = torch.ops.memofast.span_mask(offsets, keys, rng, selected, rows, capacity, parameters, "triton")
        theirs = span_mask_reference(
            offsets, keys, rng, policy, rows=rows, site=site, selected=selected, capacity=capacity)
        for name, a, b in zip(MaskedRows._fields, ours, theirs):
            assert a.dtype == b.dtype and torch.equal(a, b), (policy, name)
"""


def run(script, *arguments, **environment):
    command = [sys.executable, "-c", script, *arguments]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_importing_memofast_does_not_import_triton():
    run("import sys, memofast.ops; assert 'triton' not in sys.modules")


@pytest.mark.slow
def test_interpreted_kernel_equals_reference():
    run(INTERPRETED, TRITON_INTERPRET="1")

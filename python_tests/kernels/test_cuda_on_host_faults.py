"""What `cuda_on_host` is worth: it runs a sound kernel, and shows the faults of others."""

import os
import subprocess
from pathlib import Path

import pytest

from memofast.extension import SOURCE_ROOT


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    target = tmp_path_factory.mktemp("faults") / "faulty_kernels"
    host = Path(__file__).parent / "cuda_on_host"
    flags = f"-std=c++17 -O1 -D__CUDACC__ -I{host} -I{SOURCE_ROOT / 'csrc'} -include cuda_runtime.h".split()
    subprocess.run(["g++", *flags, str(host / "faulty_kernels.cpp"), "-o", str(target)], check=True)
    return target


def results(program, order):
    """By kernel: (error code, first value), and what was said of errors."""
    environment = os.environ | {"MEMOFAST_THREAD_ORDER": order}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {name: (int(error), int(value)) for name, error, value in lines}, done.stderr


def test_faults_show(program):
    forward, said = results(program, "forward")
    reverse, _ = results(program, "reverse")
    assert forward["sound"] == reverse["sound"] == (0, 63)
    assert forward["no_barrier"] != reverse["no_barrier"]  # read before it was written, in one order of threads
    for name in ("leave", "mix", "past"):
        assert forward[name][0] == reverse[name][0] == 719
    for message in ("others never reach", "different operations", "wrote past the dynamic shared memory"):
        assert message in said

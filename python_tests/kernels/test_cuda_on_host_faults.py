"""What `cuda_on_host` is worth: it runs a sound kernel, and shows the faults of others; what our operators say of
faults."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from memofast.errors import DeviceError
from memofast.ops import attention, bias_gelu


@pytest.fixture(scope="module")
def program(csrc, tmp_path_factory):
    target = tmp_path_factory.mktemp("faults") / "faulty_kernels"
    host = Path(__file__).parent / "cuda_on_host"
    flags = f"-std=c++17 -O1 -D__CUDACC__ -I{host} -I{csrc} -include cuda_runtime.h".split()
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
    assert forward["elsewhere"][0] == 400  # another device was current
    assert not any(forward[f"after_{name}"][0] for name in ("past", "elsewhere"))  # told once, not of a later call
    for message in ("others never reach", "different operations", "wrote past the dynamic shared memory"):
        assert message in said


def test_cuda_error_names_kernel_shape_and_device(cuda_on_host):
    x = torch.zeros(1, 65536 * 256)  # more blocks than a grid has
    with pytest.raises(DeviceError, match=r"^bias_gelu: cudaErrorInvalidValue: .*x \[1, 16777216\] float32.* on cpu"):
        bias_gelu(x, x[0], backend="cuda")


@pytest.mark.parametrize("backward", [False, True])
def test_too_little_shared_memory(cuda_on_host, monkeypatch, backward):
    qkv, offsets = torch.zeros(3, 3, 1, 128, requires_grad=backward), torch.tensor([0, 3], dtype=torch.int32)
    monkeypatch.setenv("MEMOFAST_SHARED_BYTES", str(30 * 1024))  # forward needs 25 KiB for 16 rows, backward 33
    run = attention(qkv, offsets, backend="cuda")
    if not backward:
        monkeypatch.setenv("MEMOFAST_SHARED_BYTES", str(16 * 1024))
    with pytest.raises(DeviceError, match=r"attention: .* too little shared memory .*qkv \[3, 3, 1, 128\] float32"):
        run.sum().backward() if backward else attention(qkv, offsets, backend="cuda")

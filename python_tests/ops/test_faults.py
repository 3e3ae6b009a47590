"""What is said where a kernel, the device or memory fails."""

import pytest
import torch

from memofast import _C
from memofast.errors import DeviceError
from memofast.ops import bias_gelu, faults, library

QKV, OFFSETS = torch.zeros(5, 3, 2, 40, dtype=torch.bfloat16), torch.tensor([0, 5], dtype=torch.int32)


@pytest.mark.parametrize(
    ("status", "kind", "says", "remedy"),
    [
        (719, DeviceError, _C.cuda_error(719), "MEMOFAST_DEBUG=1 names"),
        (2, DeviceError, _C.cuda_error(2), "smaller batch"),
        (209, DeviceError, _C.cuda_error(209), "MEMOFAST_ARCHS"),
        (701, DeviceError, _C.cuda_error(701), "shared memory"),
        (35, DeviceError, _C.cuda_error(35), "driver"),
        (-1, RuntimeError, "built without that backend", "memofast.info"),
        (-5, ValueError, "not covered", "another backend"),
        (-6, MemoryError, "out of memory", "smaller batch"),
        (-8, DeviceError, "too little shared memory", "another backend"),
        (-99, ValueError, "status -99", ""),
    ],
)
def test_status_names_operator_tensors_and_remedy(status, kind, says, remedy):
    with pytest.raises(kind) as raised:
        faults.check_status("attention", status, (QKV, OFFSETS, None))
    message = str(raised.value)
    assert message.startswith("attention: ") and says in message and remedy in message and "\n" not in message
    assert "qkv [5, 3, 2, 40] bfloat16, offsets [2] int32 on cpu" in message


def test_many_tensors_are_cut_to_the_largest():
    tensors = [torch.zeros(size) for size in range(1, 33)]
    with pytest.raises(ValueError) as raised:
        faults.check_status("embed_backward", -3, tensors)
    assert "sample_keys [32] float32" in str(raised.value) and "[26]" not in str(raised.value)


def triton_error(message):
    return type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})(message)


@pytest.mark.parametrize(
    ("error", "of_device"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (triton_error("out of resource: shared memory"), True),
        (MemoryError(), True),
        (DeviceError("attention: ..."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error"), False),
    ],
)
def test_what_counts_as_a_fault_of_the_device(error, of_device):
    assert faults.is_of_device(error) == of_device


def test_memory_of_the_host_runs_out():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert faults.is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("name", "error", "remedy"),
    [
        (
            "breaks",
            torch.AcceleratorError("CUDA error: misaligned address\nCompile with TORCH_USE_CUDA_DSA"),
            "started anew",
        ),
        ("is_too_large", triton_error("out of resource: shared memory"), "another backend"),
    ],
)
def test_a_raw_op_names_itself(monkeypatch, name, error, remedy):
    monkeypatch.setattr(library, "require_device", lambda *_: None)

    def fail(*_):
        raise error

    operator = library.define(
        f"{name}(Tensor rows, int site, str backend) -> Tensor", fail, fail, ("triton",), lambda *_: None
    )
    with pytest.raises(DeviceError) as raised:
        operator(torch.zeros(3, 7), 1, "triton")
    message = str(raised.value)
    assert f"{name}: {faults.first_line(error)} (rows [3, 7] float32 on cpu)" in message and remedy in message
    assert raised.value.__cause__ is error and "DSA" not in message


@pytest.mark.gpu
def test_device_and_cuda_error_have_names():
    assert faults.describe(torch.device("cuda", 0)).startswith(f"cuda:0 ({torch.cuda.get_device_name()}, compute ")
    assert _C.cuda_error(700) == "cudaErrorIllegalAddress: an illegal memory access was encountered"
    x = torch.zeros(1, 65536 * 256, device="cuda")  # more blocks than a grid has
    # by the driver, or by the runtime
    refused = r"bias_gelu: cudaErrorInvalid(Value|Configuration): .*x \[1, 16777216\] float32"
    with pytest.raises(DeviceError, match=refused):
        bias_gelu(x, x[0], backend="cuda")

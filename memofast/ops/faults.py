"""What a kernel could not do, said so that a user can act: the operator, its tensors, the device, and the remedy."""

from collections.abc import Sequence

import torch
from torch import Tensor

from memofast import _C
from memofast.errors import DeviceError

BAD_OFFSETS, NOT_AS_NEEDED = -2, -7
_STATUS = {
    -1: (RuntimeError, "this installation was built without that backend", "see `python -m memofast.info`"),
    BAD_OFFSETS: (ValueError, "offsets must start at 0, never decrease, and end within the rows given", ""),
    -3: (ValueError, "an id or source row lies outside its table", ""),
    -4: (ValueError, "a tensor is not aligned as the kernel needs", "make it contiguous"),
    -5: (ValueError, "this shape is not covered by the kernel", "name another backend"),
    -6: (MemoryError, "out of memory", "use a smaller batch"),
    NOT_AS_NEEDED: (ValueError, "a tensor's type, shape, strides or device is not what the kernel takes", ""),
    -9: (ValueError, "a number (of the policy, or site, eps, scale, longest) is not what the kernel can work with", ""),
    -8: (DeviceError, "a block of this GPU has too little shared memory for the shape", "name another backend"),
}
_OUT_OF_MEMORY, _OUT_OF_RESOURCES, _OLD_DRIVER = 2, 701, 35  # cudaError_t
_NO_KERNEL_FOR_DEVICE = (
    98,
    200,
    209,
    218,
    222,
)  # of invalid functions and images, and of PTX that the driver cannot compile
_ANEW = "the process must be started anew"
_MOST_SHOWN = 6
_MARKS = ("CUDA error", "CUDA driver error", "Triton Error", "NCCL error", "CUBLAS_STATUS", "CUDNN_STATUS")


def check_status(
    operator: str, status: int, tensors: Sequence[Tensor | None] = (), named: list[tuple[str, Tensor]] | None = None
) -> None:
    """Raise the error that a kernel's return code stands for.

    Args: for the message, tensors: operands in the order of the operator's schema (of forward, also where backward
        failed);
        named: operands with their names, of what has no schema.
    """
    if status == 0:
        return
    if status > 0:
        kind, what, remedy = DeviceError, _C.cuda_error(status), _remedy(status)
    else:
        kind, what, remedy = _STATUS.get(status, (ValueError, f"status {status}", ""))
    if named is None:
        named = _named(operator.removesuffix("_backward"), tensors)
    raise kind(_line(operator, what, remedy, named))


def device_error(operator: str, error: BaseException, arguments: Sequence[object]) -> DeviceError:
    """What to raise where PyTorch or Triton reported a device's fault in a raw op; arguments: those of the op."""
    remedy = "name another backend" if _is_of_triton(error) else _ANEW
    return DeviceError(_line(operator, first_line(error), remedy, _named(operator, arguments)))


def is_of_device(error: BaseException) -> bool:
    """Whether a GPU, its driver, or the compiler of its kernels is what failed, be it reported by PyTorch, Triton or
    us."""
    if isinstance(error, DeviceError | torch.AcceleratorError) or is_out_of_memory(error):
        return True
    return _is_of_triton(error) or (isinstance(error, RuntimeError) and any(mark in str(error) for mark in _MARKS))


def _is_of_triton(error: BaseException) -> bool:
    """Whether it says that a kernel cannot be compiled for this GPU, or needs more of it than there is."""
    return type(error).__module__.startswith("triton.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, of a GPU or of the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def first_line(error: BaseException) -> str:
    """PyTorch goes on for lines about how to debug."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(device: torch.device) -> str:
    """A device by name and compute capability, as `cuda:0 (NVIDIA H200, compute 9.0)`."""
    if device.type != "cuda":
        return str(device)
    try:
        facts = torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError):  # no CUDA, or it is past answering
        return str(device)
    return f"{device} ({facts.name}, compute {facts.major}.{facts.minor})"


def _remedy(status: int) -> str:
    if status == _OUT_OF_MEMORY:
        return "use a smaller batch"
    if status == _OUT_OF_RESOURCES:
        return "this GPU has too few registers or too little shared memory for the shape; name another backend"
    if status == _OLD_DRIVER:
        return f"update the NVIDIA driver to one for CUDA {_C.cuda_version}"
    if status in _NO_KERNEL_FOR_DEVICE:
        archs = _C.cuda_archs or "no GPU"
        return (
            f"the kernels were built for {archs}; name this GPU's in MEMOFAST_ARCHS and run `pip install .`, "
            "or name another backend"
        )
    return f"it may be the fault of an operator before, which MEMOFAST_DEBUG=1 names; {_ANEW}"


def _named(operator: str, arguments: Sequence[object]) -> list[tuple[str, Tensor]]:
    """The tensors among an op's arguments, with their names in its schema."""
    schema = getattr(torch.ops.memofast, operator).default._schema
    pairs = zip(schema.arguments, arguments, strict=False)
    return [(argument.name, value) for argument, value in pairs if isinstance(value, Tensor)]


def _line(operator: str, what: str, remedy: str, named: list[tuple[str, Tensor]]) -> str:
    """One line; of many tensors the largest are shown."""
    largest = sorted(named, key=lambda pair: -pair[1].numel())[:_MOST_SHOWN]
    shown = [f"{name} {list(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in largest]
    where = f" ({', '.join(shown)} on {describe(largest[0][1].device)})" if largest else ""
    return f"{operator}: {what}{where}" + (f"; {remedy}" if remedy else "")

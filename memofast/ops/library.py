"""How operators are registered with PyTorch, and how their backend is chosen."""

import math
import os
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd import forward_ad

from memofast import _C
from memofast.errors import DeviceError
from memofast.ops import faults

_dispatch_modes = torch._C._len_torch_dispatch_stack  # what torch.utils._python_dispatch asks
_library = torch.library.Library("memofast", "FRAGMENT")
_FORCED = os.environ.get("MEMOFAST_BACKEND", "auto")  # read once: a look into the environment costs a microsecond
_debugging = os.environ.get("MEMOFAST_DEBUG") == "1"
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # then Triton takes tensors of the CPU, fp16 too

TYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_KERNELS = ("cpu", "cuda")  # the backends of the extension
_MOST_ROWS = 2**31 - 1
# the threads of OpenMP do not come along, and whoever waits for one waits for ever
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def define(
    schema: str,
    implementation: Callable,
    fake: Callable,
    backends: tuple[str, ...],
    check: Callable,
    integer: bool = False,
    refuse: Callable[[dict], None] | None = None,
) -> Callable:
    """Register `torch.ops.memofast.<name>` for every device and return the overload to call.

    `implementation` is refused inputs that require grad while gradients are recorded: the public function owns the
    `autograd.Function`, a raw op has no derivative. An `integer` op takes nothing that could require grad, and is
    spared the check. The kernels in C++ check what they are given; for the other backends `check` gets the arguments
    first, to raise a `ValueError`. What PyTorch or Triton report of a device's fault there is raised as a
    `DeviceError` that names the op and its tensors. In debug mode `refuse` gets the arguments by name before a kernel
    of a GPU, to raise where what they point at lies outside (None: checks `offsets`), and the device is waited for
    after it, so that its fault is told here.
    """
    name = schema[: schema.index("(")]
    _library.define(schema)
    operator = getattr(torch.ops.memofast, name).default
    names = [argument.name for argument in operator._schema.arguments]
    place = names.index("backend")
    refuse = refuse or (lambda named: _refuse_bad_offsets(name, named))

    def guarded(*arguments):
        if (
            not integer
            and torch.is_grad_enabled()
            and any(isinstance(a, Tensor) and a.requires_grad for a in arguments)
        ):
            public = name.removesuffix("_backward")
            if public != name:
                raise RuntimeError(
                    f"{public}: its gradient has no derivative (create_graph); call "
                    f"memofast.ops.{public}_reference for second derivatives"
                )
            raise RuntimeError(f"torch.ops.memofast.{name} has no derivative; call memofast.ops.{public}")
        if (backend := arguments[place]) not in _KERNELS:
            if backend not in backends:
                raise ValueError(f"{name}: backend {backend!r} is not one of {', '.join(backends)}")
            if backend != "triton":
                require_device(name, backend, next(a for a in arguments if isinstance(a, Tensor)))
            if backend != "triton" or not _INTERPRETED:
                check(*arguments)
        try:
            if not _debugging:
                return implementation(*arguments)
            named = dict(zip(names, arguments, strict=False))
            watched = named["backend"] in ("cuda", "triton")
            if watched:
                refuse(named)
            result = implementation(*arguments)
            if watched:
                _synchronise(arguments)
            return result
        except Exception as error:
            if isinstance(error, DeviceError) or faults.is_out_of_memory(error):
                raise
            if not faults.is_of_device(error):
                check(*arguments)  # which names the argument that a kernel could not take
                raise
            raise faults.device_error(name, error, arguments) from error

    for device in ("CPU", "CUDA"):
        _library.impl(name, guarded, device)
    torch.library.register_fake(f"memofast::{name}", fake, lib=_library)
    return operator


def _refuse_bad_offsets(operator: str, named: dict) -> None:
    if (offsets := named.get("offsets")) is not None:
        rows = named["rows"] if "rows" in named else next(iter(named.values())).shape[0]
        spans(operator, offsets, rows, named.get("lengths"))


def _synchronise(arguments: Iterable[object]) -> None:
    for tensor in arguments:
        if isinstance(tensor, Tensor) and tensor.is_cuda:
            return torch.cuda.synchronize(tensor.device)


def spans(operator: str, offsets: Tensor, rows: int, lengths: Tensor | None = None) -> list[tuple[int, int]]:
    """First row and length of every sequence; a `ValueError` where they lie outside. Waits for the device."""
    bounds = offsets.tolist()
    room = [stop - start for start, stop in pairwise(bounds)]
    used = room if lengths is None else lengths.tolist()
    if bounds[0] != 0 or bounds[-1] > rows or any(not 0 <= n <= most for n, most in zip(used, room, strict=True)):
        faults.check_status(operator, faults.BAD_OFFSETS)
    return list(zip(bounds[:-1], used, strict=True))


def is_eager() -> bool:
    """Whether calls run as they are made, with no compiler, tracer or mode that watches operators."""
    return not torch.compiler.is_compiling() and not _dispatch_modes()


def calls_at_once() -> bool:
    """Whether a kernel that takes its operands as they are may be called without PyTorch's dispatcher.

    The way through it and back into Python costs more than some kernels do. Debug mode does its checks there, and
    tangents of forward-mode derivatives are found there.
    """
    return not (_debugging or torch.compiler.is_compiling() or _dispatch_modes() or forward_ad._current_level >= 0)


def refuse_tangents(operator: str, *tensors: Tensor | None) -> None:
    """Raise a `RuntimeError` where a tensor carries a forward-mode derivative, which the operator would lose."""
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return
    for tensor in tensors:
        if tensor is None or not tensor.is_floating_point():
            continue
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        if wrapped or forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(
                f"{operator} has no forward-mode derivative (jvp); call memofast.ops.{operator}_reference, which has"
            )


def records_nothing() -> bool:
    """Whether a backward pass may call its kernel at once: a second derivative asks the raw op, which refuses it."""
    return calls_at_once() and not torch.is_grad_enabled()


def resolve(operator: str, requested: str, automatic: str, backends: Iterable[str]) -> str:
    """The backend to run: the one requested, else MEMOFAST_BACKEND at import, else `automatic`; unknown ones raise
    `ValueError`."""
    if requested == "auto":
        requested = _FORCED
        if requested == "auto":
            return automatic
    if requested not in (known := tuple(backends)):
        raise ValueError(f"{operator}: backend {requested!r} is not one of auto, {', '.join(known)}")
    return requested


def debugging() -> bool:
    """Whether MEMOFAST_DEBUG was 1 at import: what kernels on a GPU are given is checked, and each is waited for."""
    return _debugging


def require_device(operator: str, backend: str, tensor: Tensor) -> None:
    """Raise `ValueError` where a named backend cannot run on the tensor's device."""
    expected = {"cpu": "cpu", "cuda": "cuda", "triton": "cuda"}.get(backend)
    if expected and tensor.device.type != expected:
        raise ValueError(f"{operator}: backend {backend!r} needs {expected} tensors, got {tensor.device}")


def row_types(x: Tensor, exact: bool) -> tuple[torch.dtype, ...]:
    """Types that row operators take on this device; `exact` (backend reference) adds fp64."""
    types = (torch.float32, torch.bfloat16, torch.float16) if x.is_cuda else (torch.float32, torch.bfloat16)
    return (*types, torch.float64) if exact else types


def check_tensor(
    operator: str,
    name: str,
    tensor: Tensor,
    *,
    shape: tuple[int | None, ...] | None = None,
    dtype: torch.dtype | tuple[torch.dtype, ...] | None = None,
    device: torch.device | None = None,
) -> None:
    """Raise a `ValueError` that names the argument, what was expected and what came. A None in `shape` fits any
    size."""
    require_tensor(operator, name, tensor)
    if tensor.dtype is dtype and tensor.shape == shape and tensor.device == device and tensor.is_contiguous():
        return  # the usual case, in a microsecond
    have = tensor.dtype
    if dtype is not None and have is not dtype and (not isinstance(dtype, tuple) or have not in dtype):
        raise ValueError(f"{operator}: {name} must be {dtype}, got {have}")
    if shape is not None and tensor.shape != shape and not _fits(tensor.shape, shape):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{operator}: {name} must have shape [{expected}], got {list(tensor.shape)}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{operator}: {name} must be on {device}, got {tensor.device}")
    if not tensor.is_contiguous():
        raise ValueError(
            f"{operator}: {name} must be contiguous, got strides {tuple(tensor.stride())}; call .contiguous()"
        )


def check_count(operator: str, name: str, number: int | torch.SymInt) -> None:
    """Raise a `ValueError` for what is no number of rows."""
    if isinstance(number, torch.SymInt) or (type(number) is int and 0 <= number <= _MOST_ROWS):
        return
    raise ValueError(f"{operator}: {name} must be an integer from 0 to {_MOST_ROWS}, got {_shown(number)}")


def check_number(operator: str, name: str, number: float, least: float | None = None) -> None:
    """Raise a `ValueError` for what is no finite number, or less than `least`."""
    if isinstance(number, torch.SymFloat | torch.SymInt):
        return
    finite = isinstance(number, int | float) and -math.inf < number < math.inf  # as compiled code asks it
    if not finite or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least:g}"
        raise ValueError(f"{operator}: {name} must be a finite number{bound}, got {_shown(number)}")


def check_site(operator: str, site: int) -> None:
    """Raise a `ValueError` for what is no `philox.site`."""
    if not isinstance(site, torch.SymInt) and not (isinstance(site, int) and 0 <= site < 2**32):
        raise ValueError(f"{operator}: site must be an integer from 0 to {2**32 - 1}, got {_shown(site)}")


def as_number(operator: str, name: str, number: object) -> float:
    """A float of what a caller gave; what is no number raises a `ValueError`."""
    if isinstance(number, torch.SymFloat | torch.SymInt):
        return number
    try:
        if isinstance(number, str):
            raise TypeError
        return float(number)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{operator}: {name} must be a number, got {_shown(number)}") from None


def require_tensor(operator: str, name: str, value: object) -> None:
    """Raise a `ValueError` for what is no tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{operator}: {name} must be a tensor, got {_shown(value)}")


def _shown(value: object) -> str:
    return repr(value) if value is None or isinstance(value, int | float | str) else type(value).__name__


def _fits(sizes: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    # a list, as a generator would cost more than the comparisons
    return len(sizes) == len(shape) and all(
        [want is None or have == want for have, want in zip(sizes, shape, strict=True)]
    )


_LARGE = 4 << 20


def output_like(tensor: Tensor) -> Tensor:
    """Uninitialised memory like a tensor's; large memory on the CPU is asked to be huge pages, for it costs mostly page
    faults."""
    memory = torch.empty_like(tensor)
    if tensor.device.type == "cpu" and memory.nbytes >= _LARGE:
        _C.advise_huge_pages(memory.data_ptr(), memory.nbytes)
    return memory


def stream(tensor: Tensor) -> int:
    """The current CUDA stream of the tensor's device as an integer; 0 on the CPU."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0

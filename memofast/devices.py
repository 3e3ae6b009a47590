"""The device that tensors live on, and the precision of what is computed there."""

import multiprocessing
import warnings
from contextlib import AbstractContextManager, nullcontext

import torch

from memofast.cpu import bf16_units
from memofast.errors import MemofastError, MemofastWarning


def choose_device(name: str, option: str = "--device") -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`. Raises: `MemofastError`, naming the option, for another name and
    where there is no GPU."""
    if name not in {"auto", "cpu", "cuda"}:
        raise MemofastError(f"{option} is auto, cpu or cuda, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise MemofastError(
            f"{option} is cuda, but PyTorch sees no GPU; `memofast info` says why, {option} cpu works without"
        )
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def open_device(name: str) -> torch.device:
    """The device of a process that prepares media. Workers take the GPUs in turn and share one where they are more.

    Arithmetic on a GPU is set to full fp32 and to algorithms that give the same bits every time.
    """
    if name == "cpu":
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    worker = (multiprocessing.current_process()._identity or (1,))[0] - 1
    return torch.device("cuda", worker % torch.cuda.device_count())


def device_of_rank(name: str, local_rank: int = 0) -> torch.device:
    """The device of one training process. name: `train.device` of a recipe. Raises: as `choose_device`."""
    chosen = choose_device(name, "train.device")
    return torch.device("cpu") if chosen == "cpu" else torch.device("cuda", local_rank)


def precision_on(name: str, device: torch.device) -> str:
    """`bf16` or `fp32`; `auto` is bf16 on GPUs and on CPUs with bf16 matrix instructions. Warns of bf16 on others."""
    if name == "bf16" and device.type == "cpu" and not bf16_units():
        warnings.warn(
            "this CPU has no bf16 matrix instructions, so that precision bf16 is many times slower than fp32, which "
            "auto takes here",
            MemofastWarning,
            stacklevel=2,
        )
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" or bf16_units() else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Matrix products in bf16 where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

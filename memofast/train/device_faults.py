"""A GPU that fails, or memory that runs out, while a model trains: one line that says what, when, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from memofast.errors import DeviceError, MemofastError
from memofast.ops import faults
from memofast.train.checkpoints import Checkpoints
from memofast.train.state import State

_LESS_MEMORY = "lower train.samples or train.rows and raise train.accumulate by as much, which keeps the update"
_NAMED = "MEMOFAST_DEBUG=1 names the operator that caused it"


@contextmanager
def explained(
    folder: Path, device: torch.device, state: State | None = None, run: Path | None = None
) -> Iterator[None]:
    """Context in which a device's fault, or a lack of memory, becomes a `MemofastError`.

    Args: folder: of the run, whose checkpoints stay as they are; state: of the run, None while it is being set
        up;
    run: what --resume takes, None: the folder itself.
    """
    try:
        yield
    except Exception as error:
        if not faults.is_of_device(error):
            raise
        when = "while the run was set up" if state is None else f"after update {state.step}"
        line = f"{faults.describe(device)} failed {when}: {_what(error)}; {_how_to_go_on(folder, run or folder)}"
        raise MemofastError(line) from error


def _what(error: Exception) -> str:
    if isinstance(error, DeviceError):
        return str(error)
    said = ". ".join(faults.first_line(error).split(". ")[:2]).removesuffix(".")  # PyTorch goes on about its allocator
    return f"{said}; {_LESS_MEMORY if faults.is_out_of_memory(error) else _NAMED}"


def _how_to_go_on(folder: Path, run: Path) -> str:
    steps = Checkpoints(folder / "checkpoints").steps()
    return f"continue from update {steps[-1]} with --resume {run}" if steps else "nothing was saved yet, so start again"

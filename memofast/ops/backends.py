"""Which backend `auto` takes: what was measured, by operator and generation of device, and how the table is read.

A row lists backends in order; the first one that this installation has and that covers the operands is taken. To fill
in a GPU's rows, run `pytest bench -m gpu --benchmark-json=FILE` there, put the fastest backend first, and write down
the date and the command.
"""

from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from memofast import _C


class Row(NamedTuple):
    """backends: in order of preference. date, command: of the measurement that says so."""

    backends: tuple[str, ...]
    date: str = "not measured"
    command: str = "chosen by design"


def _measured(backend: str, command: str) -> Row:
    """On a CPU against plain PyTorch; the report is bench/results/amd-epyc-2-threads/speed.md."""
    return Row((backend,), "2026-11-22", command)


# `before_sm_80`: GPUs that no kernel is built for; `sm_80` also stands for 8.6 to 8.9, `sm_100` for all newer ones;
# `other`: no CUDA device.
TABLE = {
    "attention": {
        "cpu": _measured("cpu", "pytest bench/test_attention.py"),
        "before_sm_80": Row(("torch",)),
        "sm_80": Row(("cuda", "triton", "torch")),
        "sm_90": Row(("cuda", "triton", "torch")),
        "sm_100": Row(("cuda", "triton", "torch")),
        "other": Row(("torch",)),
    },
    "embed": {
        "cpu": _measured("cpu", "pytest bench/test_embed.py"),
        "before_sm_80": Row(("reference",)),
        "sm_80": Row(("cuda", "triton", "reference")),
        "sm_90": Row(("cuda", "triton", "reference")),
        "sm_100": Row(("cuda", "triton", "reference")),
        "other": Row(("reference",)),
    },
    "dropout_add_norm": {
        "cpu": _measured("cpu", "pytest bench/test_dropout_add_norm.py"),
        "before_sm_80": Row(("reference",)),
        "sm_80": Row(("cuda", "reference")),
        "sm_90": Row(("cuda", "reference")),
        "sm_100": Row(("cuda", "reference")),
        "other": Row(("reference",)),
    },
    "bias_gelu": {
        "cpu": _measured("cpu", "pytest bench/test_bias_gelu.py"),
        "before_sm_80": Row(("reference",)),
        "sm_80": Row(("cuda", "reference")),
        "sm_90": Row(("cuda", "reference")),
        "sm_100": Row(("cuda", "reference")),
        "other": Row(("reference",)),
    },
    "separable_attention": {
        "cpu": _measured("cpu", "pytest bench/test_perceiver.py"),
        "before_sm_80": Row(("reference",)),
        "sm_80": Row(("cuda", "reference")),
        "sm_90": Row(("cuda", "reference")),
        "sm_100": Row(("cuda", "reference")),
        "other": Row(("reference",)),
    },
    "span_mask": {
        "cpu": _measured("cpu", "pytest bench/test_span_mask.py"),
        "before_sm_80": Row(("reference",)),
        "sm_80": Row(("cuda", "triton", "reference")),
        "sm_90": Row(("cuda", "triton", "reference")),
        "sm_100": Row(("cuda", "triton", "reference")),
        "other": Row(("reference",)),
    },
    "token_mask": {
        "cpu": _measured("cpu", "pytest bench/test_token_mask.py"),
        "before_sm_80": Row(("reference",)),
        "sm_80": Row(("cuda", "reference")),
        "sm_90": Row(("cuda", "reference")),
        "sm_100": Row(("cuda", "reference")),
        "other": Row(("reference",)),
    },
}
_GENERATIONS = {
    100: "sm_100",
    90: "sm_90",
    80: "sm_80",
    0: "before_sm_80",
}  # by the least compute capability, times ten


def _installed(has_cuda: bool, has_triton: bool) -> dict[str, dict[str, tuple[str, ...]]]:
    """The table's backends without those that this installation lacks."""
    lacks = {name for name, has in (("cuda", has_cuda), ("triton", has_triton)) if not has}
    return {
        operator: {device: tuple(b for b in row.backends if b not in lacks) for device, row in rows.items()}
        for operator, rows in TABLE.items()
    }


_order = _installed(bool(_C.cuda_version), find_spec("triton") is not None)
_known: dict[int | None, str] = {}  # generation of each CUDA device that was asked for


def automatic(operator: str, tensor: Tensor, uncovered: tuple[str, ...] = ()) -> str:
    """What `auto` means for an operator on the device of a tensor; `uncovered`: backends that do not take these
    operands."""
    if tensor.dtype is torch.float64:
        return "reference"
    if tensor.is_cpu:
        return _order[operator]["cpu"][0]
    for backend in _order[operator][_generation(tensor.device)]:
        if backend not in uncovered:
            return backend
    return "reference"


def _generation(device: torch.device) -> str:
    if device.type != "cuda":
        return "other"
    if torch.compiler.is_compiling():  # a tracer would guard on what is known so far
        return _generation_of(device)
    if device.index not in _known:
        _known[device.index] = _generation_of(device)
    return _known[device.index]


def _generation_of(device: torch.device) -> str:
    facts = torch.cuda.get_device_properties(device)  # to a tracer a constant, as get_device_capability is not
    return next(name for least, name in _GENERATIONS.items() if 10 * facts.major + facts.minor >= least)

"""The optimiser's state in a checkpoint, checked before an optimiser sees it: its fused kernels trust every shape."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.files import refuse_bomb, refuse_pointer

_OF_ADAMW = ("step", "exp_avg", "exp_avg_sq")


def state_to_save(learner: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state with the names of its parameters, in their order."""
    return {**optimiser.state_dict(), "names": _names(learner, optimiser)}


def read_state(
    path: Path, learner: nn.Module, optimiser: torch.optim.Optimizer, step: int, whole: bool
) -> dict[str, Any]:
    """A saved state as `optimiser.load_state_dict` takes it, with the options that the optimiser has now.

    Args: step: updates done. whole: every parameter that is trained has been stepped.
    Raises: `MemofastError` where it is of other groups of parameters; `ValueError`, saying what is wrong, where it is
        no state of AdamW of these parameters, or not finite.
    """
    refuse_pointer(path)
    refuse_bomb(path)
    if not path.exists():
        raise FileNotFoundError
    if not zipfile.is_zipfile(path):
        raise ValueError("is no file that torch.save wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a foreign pickle has as many kinds of error as it has contents
        raise ValueError("holds something else than the numbers of an optimiser") from None
    if not isinstance(state, dict) or state.keys() - {"names"} != {"state", "param_groups"}:
        raise ValueError("holds no state of an optimiser")
    own, names = optimiser.state_dict()["param_groups"], _names(learner, optimiser)
    _check_groups(path, state["param_groups"], own)
    if state.get("names", names) != names:
        raise ValueError("is of parameters with other names")
    _check_moments(state["state"], names, _parameters(optimiser), step, whole)
    return {"state": state["state"], "param_groups": own}


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _names(learner: nn.Module, optimiser: torch.optim.Optimizer) -> list[str]:
    named = {id(parameter): name for name, parameter in learner.named_parameters()}
    return [named[id(parameter)] for parameter in _parameters(optimiser)]


def _check_groups(path: Path, saved: Any, own: list[dict[str, Any]]) -> None:
    try:
        kept, asked = ([(of.get("name", ""), [*of["params"]]) for of in groups] for groups in (saved, own))
    except (AttributeError, KeyError, TypeError):
        raise ValueError("holds no groups of parameters") from None
    if kept != asked:
        before, now = ([(name, len(parameters)) for name, parameters in groups] for groups in (kept, asked))
        raise MemofastError(
            f"checkpoint {path.parent} was trained in other groups of parameters ({before}, now {now}); "
            "resume with the run's own train.groups and objectives"
        )


def _check_moments(found: Any, names: list[str], parameters: list[nn.Parameter], step: int, whole: bool) -> None:
    if not isinstance(found, dict) or not set(found) <= set(range(len(names))):
        raise ValueError("holds numbers of other parameters")
    lacking = [n for n, of in zip(range(len(names)), parameters, strict=True) if of.requires_grad and n not in found]
    if whole and lacking:
        raise ValueError(f"lacks the numbers of {names[lacking[0]]}")
    for number, values in found.items():
        name, parameter = names[number], parameters[number]
        if not isinstance(values, dict) or sorted(map(str, values)) != sorted(_OF_ADAMW):
            raise ValueError(f"holds other numbers of {name} than AdamW has")
        for kind in _OF_ADAMW:
            shape, dtype = ((), torch.float32) if kind == "step" else (tuple(parameter.shape), parameter.dtype)
            _check_tensor(values[kind], f"{kind} of {name}", shape, dtype)
        if not 1 <= float(values["step"]) <= step or float(values["step"]) % 1:
            raise ValueError(f"counts {float(values['step']):g} updates of {name}, the run has done {step}")
        if parameter.numel() and values["exp_avg_sq"].min() < 0:
            raise ValueError(f"exp_avg_sq of {name} is negative")
    places = [tensor.data_ptr() for values in found.values() for tensor in values.values() if tensor.numel()]
    if len(set(places)) < len(places):
        raise ValueError("keeps several numbers in one place")


def _check_tensor(tensor: Any, what: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    dense = type(tensor) is Tensor and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or not (tensor.is_contiguous() or _has_channels_last(tensor)):
        raise ValueError(f"{what} is no dense tensor")
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"{what} is {list(tensor.shape)} {tensor.dtype}, the parameter's {list(shape)} {dtype}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{what} is not finite")


def _has_channels_last(tensor: Tensor) -> bool:
    """Whether these are numbers of a convolution's weights, as a face network keeps them."""
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)

"""Parameter groups, learning rate, clipping and precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from memofast.cpu import bf16_units
from memofast.errors import MemofastError
from memofast.train.recipe import Train

_LOWEST_RATE = 1e-8


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters with weight decay, and biases and LayerNorms without."""
    norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if id(parameter) in norms or name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def adamw(model: nn.Module, train: Train) -> torch.optim.AdamW:
    """Fused AdamW with decoupled decay."""
    groups = parameter_groups(model, train.weight_decay)
    return torch.optim.AdamW(groups, lr=train.lr, betas=tuple(train.betas), eps=train.eps, fused=True)


def learning_rate(step: int, train: Train) -> float:
    """The rate of one update, counted from 1.

    Linear warm-up to `lr`; then `linear` decay to 0 at the last update, or `constant`; never below 1e-8. Source: MEmoBERT's `linear`.
    """
    if step < train.warmup:
        rate = train.lr * step / train.warmup
    elif train.schedule == "constant" or train.updates <= train.warmup:
        rate = train.lr
    else:
        rate = train.lr * (train.updates - step) / (train.updates - train.warmup)
    return max(rate, _LOWEST_RATE)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def set_capturable(optimiser: torch.optim.Optimizer, device: torch.device | None) -> None:
    """Make the optimiser fit for CUDA graphs on `device`, its rate in a tensor there; None: back to plain numbers."""
    for group in optimiser.param_groups:
        rate = float(group["lr"])
        group["capturable"] = device is not None
        group["lr"] = rate if device is None else torch.tensor(rate, device=device)


def clip(model: nn.Module, largest: float) -> Tensor:
    """Scale the gradients down to a global norm of at most `largest`. Returns: the norm before, scalar on the device."""
    return nn.utils.clip_grad_norm_(model.parameters(), largest)


def device_of(train: Train, local_rank: int = 0) -> torch.device:
    """Raises `MemofastError` where CUDA is asked for and there is none."""
    if train.device == "cuda" and not torch.cuda.is_available():
        raise MemofastError("train.device is cuda, but torch sees no CUDA device; see python -m memofast.info")
    if train.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def precision_of(train: Train, device: torch.device) -> str:
    """`bf16` or `fp32`, with `auto` resolved."""
    if train.precision != "auto":
        return train.precision
    return "bf16" if device.type == "cuda" or bf16_units() else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

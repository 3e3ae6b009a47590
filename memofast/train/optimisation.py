"""Parameter groups, learning rate and clipping."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

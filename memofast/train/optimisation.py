"""Parameter groups, learning rate and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.face_networks.frozen_norm import FrozenNorm
from memofast.train.recipe import Group, Train

_LOWEST_RATE = 1e-8
_EPSILON = 1e-6  # of torch's clipping
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, FrozenNorm)


def parameter_groups(learner: nn.Module, train: Train) -> list[dict]:
    """The trained parameters of the model with weight decay, biases and LayerNorms without, then those of
    `train.groups` and of objectives.

    A group's `factor` is what the learning rate of an update is multiplied with, `warmup` over how many updates it
    rises, `clip` whether its gradients are clipped. A pattern of fixed parameters alone has no group, see
    `lines_on_fixed_groups`. Raises: `MemofastError` for a pattern that no parameter has, or that those before it leave
    none to.
    """
    norms = {id(p) for module in learner.modules() if isinstance(module, _NORMS) for p in module.parameters()}
    everything = Group()
    found = {("", decayed): _group("", everything, train.weight_decay * decayed) for decayed in (True, False)}
    named = [(name, _own(name), parameter) for name, parameter in learner.named_parameters()]
    for name, own, parameter in named:
        if not parameter.requires_grad:
            continue
        pattern = next((pattern for pattern in train.groups if fnmatchcase(own, pattern)), "")
        chosen = train.groups.get(pattern, everything)
        of_objective = name.startswith("objectives.")
        decayed = not of_objective and id(parameter) not in norms and not name.endswith("bias")
        asked = train.weight_decay if chosen.weight_decay is None else chosen.weight_decay
        decay = asked if decayed else 0.0
        key = pattern or ("objectives" if of_objective else ""), decayed
        group = found.setdefault(key, _group(key[0], chosen, decay))
        group["params"].append(parameter)
    for pattern, chosen in train.groups.items():
        if chosen.weight_decay and (pattern, False) in found and (pattern, True) not in found:
            raise MemofastError(
                f"train.groups.{pattern}: weight_decay {chosen.weight_decay} would do nothing; biases, LayerNorms and "
                "parameters of objectives have none"
            )
        if any(pattern == name for name, _ in found) or _fixed(learner, pattern):
            continue
        named_so = any(fnmatchcase(own, pattern) for _, own, _ in named)
        reason = "patterns before it fit all its parameters" if named_so else "no parameter has such a name"
        raise MemofastError(f"train.groups.{pattern}: {reason}; they are named as in model.safetensors")
    return list(found.values())


def lines_on_fixed_groups(learner: nn.Module, train: Train) -> Iterator[str]:
    """A line for each of `train.groups` that does nothing, as none of its parameters is trained."""
    for pattern in train.groups:
        if _fixed(learner, pattern):
            yield f"train.groups.{pattern}: none of its parameters is trained, so it changes nothing"


def _fixed(learner: nn.Module, pattern: str) -> bool:
    """Whether a pattern fits parameters, and fixed ones alone."""
    fitting = [p.requires_grad for name, p in learner.named_parameters() if fnmatchcase(_own(name), pattern)]
    return bool(fitting) and not any(fitting)


def _own(name: str) -> str:
    """A parameter's name in `train.groups`."""
    return name.removeprefix("model.")


def _group(name: str, chosen: Group, weight_decay: float) -> dict:
    own = {"factor": chosen.lr, "warmup": chosen.warmup, "clip": chosen.clip}
    return {"params": [], "weight_decay": weight_decay, "name": name, **own}


def adamw(learner: nn.Module, train: Train) -> torch.optim.AdamW:
    """Fused AdamW with decoupled decay."""
    groups = parameter_groups(learner, train)
    return torch.optim.AdamW(groups, lr=train.lr, betas=tuple(train.betas), eps=train.eps, fused=True)


def learning_rate(step: int, train: Train, warmup: int | None = None) -> float:
    """The rate of one update, counted from 1; warmup: in updates; None: the training's.

    Linear warm-up to `lr`; then `linear` decay to 0 at the last update, `cosine` decay to there, or `constant`; never
    below 1e-8. Source: MEmoBERT's `linear`; `cosine` is torch's CosineAnnealingLR stepped at every update.
    """
    warmup = train.warmup if warmup is None else warmup
    if step < warmup:
        rate = train.lr * step / warmup
    elif train.schedule == "constant" or train.updates <= warmup:
        rate = train.lr
    elif train.schedule == "cosine":  # the first update has the whole rate
        rate = train.lr * (1 + math.cos(math.pi * (step - 1 - warmup) / (train.updates - warmup))) / 2
    else:
        rate = train.lr * (train.updates - step) / (train.updates - warmup)
    return max(rate, _LOWEST_RATE)


def set_rates(optimiser: torch.optim.Optimizer, rate_of: Callable[[int | None], float]) -> None:
    """Give every group the rate that its warm-up has, times its own factor."""
    for group in optimiser.param_groups:
        own = rate_of(group.get("warmup")) * group.get("factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def set_capturable(optimiser: torch.optim.Optimizer, device: torch.device | None) -> None:
    """Make the optimiser fit for CUDA graphs on `device`, its rate in a tensor there; None: back to plain numbers."""
    for group in optimiser.param_groups:
        rate = float(group["lr"])
        group["capturable"] = device is not None
        group["lr"] = rate if device is None else torch.tensor(rate, device=device)


def clip(
    model: nn.Module, largest: float, optimiser: torch.optim.Optimizer | None = None, waits: bool = False
) -> Tensor:
    """Scale the gradients down to a global norm of at most `largest`, but for those of the optimiser's groups that are
    not clipped. waits: look at the norm first, and leave gradients below it as they are. Returns: the norm of all
    gradients before, scalar on the device."""
    groups = [] if optimiser is None else optimiser.param_groups
    spared = {id(one) for group in groups if not group.get("clip", True) for one in group["params"]}
    clipped = [one for one in model.parameters() if id(one) not in spared and one.grad is not None]
    norm = nn.utils.get_total_norm([one.grad for one in clipped])
    if not waits or largest < norm + _EPSILON:  # else all would be multiplied by 1
        nn.utils.clip_grads_with_norm_(clipped, largest, norm)
    if not spared:
        return norm
    others = [one.grad for one in model.parameters() if id(one) in spared and one.grad is not None]
    return torch.linalg.vector_norm(torch.stack([norm, nn.utils.get_total_norm(others)]))

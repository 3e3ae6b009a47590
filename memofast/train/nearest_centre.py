"""Naming a class by the nearest centre of the training's representations, as SPCL is tested.

The centre of largest cosine is that of the largest product with unit centres, which a linear head computes: its weights
become the centres, so that a finished model needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.objectives.class_prototypes import class_means

_TEMPERATURE = 0.1  # of cosines, for probabilities: SPCL's .05 of (1 + cosine) / 2


@torch.no_grad()
def become_centres(head: nn.Linear, z: Tensor, labels: Tensor) -> None:
    """Make a head of the class means of representations z [n, D], scaled so that logits are cosines over .1 for a
    representation of mean length."""
    centres = F.normalize(class_means(z, labels, head.out_features), dim=-1)
    head.weight.copy_(centres / (_TEMPERATURE * z.norm(dim=-1).mean()))
    head.bias.zero_()


@contextmanager
def as_centres(head: nn.Linear, z: Tensor, labels: Tensor) -> Iterator[None]:
    """Context in which a head is made of centres; then it is again what it was."""
    before = [parameter.detach().clone() for parameter in (head.weight, head.bias)]
    become_centres(head, z, labels)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip((head.weight, head.bias), before, strict=True):
                parameter.copy_(values)

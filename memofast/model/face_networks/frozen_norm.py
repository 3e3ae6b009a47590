"""Batch norm whose statistics stay as they begin, so that a row depends on no other rows of a batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FrozenNorm(nn.Module):
    """weight (x - mean) / sqrt(variance + eps) + bias of each channel, named as `nn.BatchNorm2d` names them.

    settling: take over the statistics of what comes next.
    """

    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.eps, self.settling = eps, False
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to the same."""
        if self.settling:
            self.running_mean.copy_(x.mean((0, 2, 3)))
            self.running_var.copy_(x.var((0, 2, 3), correction=0))
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def freeze_norms(module: nn.Module) -> None:
    """Put a frozen norm in the place of every batch norm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenNorm(child.num_features, child.eps))
        else:
            freeze_norms(child)

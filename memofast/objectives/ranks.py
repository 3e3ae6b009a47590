"""Rows of all ranks with their gradients, for losses that compare the samples of all micro-batches at once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def group_of_ranks() -> Any:
    """A group of all ranks for rows alone, made where the first one asks for it; None for a single process.

    All ranks must ask for it at the same point.
    """
    return _beside(dist.group.WORLD) if dist.is_initialized() and dist.get_world_size() > 1 else None


@lru_cache(maxsize=1)
def _beside(world: Any) -> Any:
    """Apart from the group that DDP exchanges gradients in: within a group the order of exchanges must be the same on
    all ranks, and gradients of parameters come whenever they are ready."""
    return dist.new_group()


def gathered(rows: Tensor, group: Any) -> Tensor:
    """Rows of all ranks [N, C], this rank's [n, C] first and then those of the ranks after it, around the circle; see
    `in_rank_order`."""
    everyone, before = _gathered(rows, group)
    return everyone.roll(-before, 0)


def in_rank_order(rows: Tensor, group: Any) -> Tensor:
    """Rows of all ranks [N, C], those of the first rank first; of integers too.

    Ranks may have different numbers of rows, or none, and all of them must call this. Backward sums what all ranks'
    losses want of a row, so that gradients are those of the sum of the ranks' losses.
    """
    return _gathered(rows, group)[0]


def _gathered(rows: Tensor, group: Any) -> tuple[Tensor, int]:
    """In the order of ranks, and how many rows those before this one have."""
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(group.size())]
    dist.all_gather(counts, count, group=group)
    counts = torch.cat(counts).tolist()
    everyone = _Gathered.apply(rows, counts, group) if sum(counts) else rows
    return everyone, sum(counts[: group.rank()])


class _Gathered(torch.autograd.Function):
    """The rows of all ranks in the order of ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], group: Any) -> Tensor:
        ctx.counts, ctx.group = counts, group
        own = F.pad(rows, (0, 0, 0, max(counts) - len(rows)))
        everyone = [torch.empty_like(own) for _ in counts]
        dist.all_gather(everyone, own, group=group)
        return torch.cat([theirs[:count] for theirs, count in zip(everyone, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        wanted = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(wanted, group=ctx.group)
        return wanted.split(ctx.counts)[ctx.group.rank()], None, None

"""One process or several under torchrun: rank, sums over ranks, the wrapped model."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from memofast.devices import device_of_rank
from memofast.train.recipe import Training


def local_world() -> int:
    """Processes of this run on this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


@dataclass
class Processes:
    """rank, world: this process among all. host: a gloo group for numbers that live on the host; None for a single
    process."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    host: Any = None

    @classmethod
    def join(cls, train: Training) -> Processes:
        """Join the group that torchrun describes in the environment (nccl on GPUs, else gloo); alone without one."""
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return cls()
        local_rank = int(os.environ["LOCAL_RANK"])
        device = device_of_rank(train.device, local_rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), local_rank, dist.new_group(backend="gloo"))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def host_sum(self, values: list[int]) -> list[int]:
        """Sum of whole numbers over ranks."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(total, group=self.host)
        return total.tolist()

    def sum_(self, values: Tensor) -> Tensor:
        """Sum of a tensor over ranks, in place, without waiting for the device."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """A picklable value of rank 0 on every rank."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.host)
        return values[0]

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier(group=self.host)

    def wrap(self, learner: nn.Module, device: torch.device, partial: bool = False) -> nn.Module:
        """The learner whose backward averages gradients over ranks. partial: parameters may take no part in an update,
        on any rank, and are left alone."""
        return learner if self.world == 1 else distributed(learner, device, partial)

    def leave(self) -> None:
        """Leave the group; a device that failed cannot, and what it said of that would hide why."""
        if self.world > 1 and dist.is_initialized():
            with suppress(torch.AcceleratorError, dist.DistBackendError):
                dist.destroy_process_group()


def distributed(learner: nn.Module, device: torch.device, partial: bool = False) -> nn.parallel.DistributedDataParallel:
    """The learner under DDP, such that its steps can be captured in CUDA graphs. partial: see `Processes.wrap`."""
    options = {"gradient_as_bucket_view": True, "find_unused_parameters": partial}
    if device.type != "cuda":
        return nn.parallel.DistributedDataParallel(learner, **options)
    # Gradients are added on the stream that DDP is made on; the default one cannot be captured.
    current, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        wrapped = nn.parallel.DistributedDataParallel(learner, device_ids=[device.index], **options)
    current.wait_stream(aside)
    return wrapped


def gather_gradients(model: nn.Module, last: bool) -> AbstractContextManager:
    """Context of one backward: ranks exchange gradients in the last of an update only."""
    wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
    return model.no_sync() if wrapped and not last else nullcontext()

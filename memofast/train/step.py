"""The work of one update on the device: forward and backward of each micro-batch, then clipping and the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from memofast.data.view import View, moved
from memofast.devices import autocast
from memofast.objectives import LossSum
from memofast.train import optimisation
from memofast.train.processes import gather_gradients


class Step:
    """Runs as PyTorch runs it, operation by operation; `CapturedStep` replays it from CUDA graphs.

    Args: learner: bare or wrapped by DDP, on `device`; clip: largest norm of all gradients; precision: `fp32` or
        `bf16`.
    """

    def __init__(
        self,
        learner: nn.Module,
        optimiser: torch.optim.Optimizer,
        clip: float,
        precision: str,
        device: torch.device,
    ):
        self.learner, self.optimiser = learner, optimiser
        self.largest, self.precision, self.device = clip, precision, device

    def add_gradients(
        self, views: Sequence[View], factors: Mapping[str, float], rng: Tensor, last: bool
    ) -> tuple[Tensor, dict[str, LossSum]]:
        """Add the gradients of one micro-batch to those there are.

        Args:
            views: on the host, page-locked where there is a GPU; factors: what each objective's sum of losses is
            multiplied with;
                rng [2] int64: run seed and update number; last: of its update, so that ranks exchange gradients.
        Returns: the loss, and the sums it is made of; valid until the next call.
        """
        weights = torch.tensor([factors[name] for name in views[0].readers]).to(self.device, non_blocking=True)
        rng = rng.to(self.device, non_blocking=True)
        return self._backward(moved(views, self.device, non_blocking=True), weights, rng, last)

    def _backward(
        self, views: Sequence[View], weights: Tensor, rng: Tensor, last: bool
    ) -> tuple[Tensor, dict[str, LossSum]]:
        with gather_gradients(self.learner, last):
            with autocast(self.precision, self.device):
                losses = self.learner(views, rng)
            total = torch.stack([loss.total for loss in losses.values()]) @ weights
            total.backward()
        return total.detach(), losses

    def close(self) -> None:
        """Give back what the device keeps for steps to come: here nothing."""

    def clip(self) -> Tensor:
        """Scale the gradients down to the largest norm. Returns: their norm before, a scalar on the device."""
        return optimisation.clip(self.learner, self.largest, self.optimiser, waits=self.device.type == "cpu")

    def apply(self, rate_of: Callable[[int | None], float]) -> None:
        """One step of the optimiser at the learning rates of an update, see `optimisation.set_rates`; gradients start
        anew."""
        optimisation.set_rates(self.optimiser, rate_of)
        self.optimiser.step()
        self.optimiser.zero_grad()

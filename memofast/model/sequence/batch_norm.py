"""BatchNorm whose state is its weights and statistics."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """torch's, without the count of batches, which only its cumulative average reads and no weights of a model are.
    Of fewer than two values there are no statistics: they are normed by the running ones, in training too."""

    def __init__(self, width: int):
        super().__init__(width)
        self.num_batches_tracked = None

    def forward(self, values: Tensor) -> Tensor:
        """Args: values [n, width], or [n, width, L]. Returns: the same shape."""
        if self.training and values.numel() <= values.shape[1]:
            return nn.functional.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(values)

    def _load_from_state_dict(self, *of_torch: Any) -> None:
        nn.Module._load_from_state_dict(self, *of_torch)  # torch's own adds the count where a state has none

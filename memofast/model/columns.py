"""Rows of features whose columns are standardised before anything is made of them."""

import torch
from torch import Tensor, nn

from memofast.data.feature_statistics import changing


class Columns(nn.Module):
    """Reads the columns of rows as (x - mean) / std; as they are until `standardise` is called. std: 0 of a column
    that never changed in training, which is read as 0 ever after."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Args: [width], of the rows to come; a column that never changes is read as 0."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(changing(mean, std), std, 0.0))

    def standardised(self, rows: Tensor, source: Tensor | None) -> Tensor:
        """Args: rows [rows, padded width]; source: see `View`, a hidden row is read as the mean. Returns: [rows,
        width] fp32."""
        still = self.std == 0
        values = ((rows[:, : self.width].float() - self.mean) / (self.std + still)) * ~still
        if source is None:
            return values
        return values[source.clamp(min=0).to(torch.int64)] * (source >= 0)[:, None]

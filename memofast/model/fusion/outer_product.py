"""A layer over the outer product of vectors, whose dropout is of single products, or one of low rank over it.

Source: Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017; Liu et al., "Efficient
Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from memofast.model.draws import Draws
from memofast.ops.library import output_like


def with_one(vectors: Tensor) -> Tensor:
    """[B, C] -> [B, 1 + C]: a constant 1 in front, so that products keep those of fewer vectors."""
    return torch.cat((vectors.new_ones(len(vectors), 1), vectors), 1)


class LowRankLayer(nn.Module):
    """A layer over the outer product of vectors of low rank: bias + sum over r of w_r times the product over modalities
    of z_m F_m,r.

    factors: by modality [rank, width, outputs]. weights [1, rank].
    """

    def __init__(self, widths: Mapping[str, int], rank: int, outputs: int, *, one_bias: bool = False):
        """Args: one_bias: for all outputs, as the layer over ranks of some originals has it."""
        super().__init__()
        shapes = {name: (rank, width, outputs) for name, width in widths.items()}
        self.factors = nn.ParameterDict({name: nn.Parameter(torch.empty(own)) for name, own in shapes.items()})
        self.weights = nn.Parameter(torch.empty(1, rank))
        self.bias = nn.Parameter(torch.zeros(1, 1 if one_bias else outputs))
        for values in (*self.factors.values(), self.weights):
            nn.init.xavier_normal_(values)

    def forward(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor] | None = None) -> Tensor:
        """Args: vectors [B, width] by modality; there [B, 1] bool: which take part in a sample's product; None: all.
        Returns: [B, outputs]."""
        product: Tensor | float = 1.0
        for name, one in vectors.items():
            factor = one @ self.factors[name]  # [rank, B, outputs]
            product = product * (factor if there is None else torch.where(there[name], factor, 1.0))
        return (self.weights[0, :, None, None] * product).sum(0) + self.bias


class OuterProductLayer(nn.Module):
    """W (a x b x c) + bias of vectors of any number; products are dropped with dropout, W [outputs, product of widths]
    as a linear layer over the flattened product has it."""

    def __init__(self, widths: Sequence[int], outputs: int, dropout: float):
        super().__init__()
        self.widths, self.dropout = tuple(widths), dropout
        flat = nn.Linear(torch.Size(self.widths).numel(), outputs)
        self.weight, self.bias = flat.weight, flat.bias

    def forward(self, vectors: Sequence[Tensor], draws: Draws) -> Tensor:
        """Args: vectors [B, width] each. Returns: [B, outputs]."""
        first, last = vectors[0], vectors[-1]
        if len(vectors) == 1:  # a product of one vector and of nothing
            first = first.new_ones(len(first), 1)
        for other in vectors[1:-1]:
            first = (first[:, :, None] * other[:, None]).flatten(1)
        keep = draws.mask((len(first), first.shape[1] * last.shape[1]), self.dropout)
        with torch.autocast(first.device.type, enabled=False):
            weight = self.weight.float()
            return _projected(first.float(), last.float(), weight, keep) + self.bias.float()


@torch.compiler.disable  # which cannot look into memory that is asked for by hand
def _projected(first: Tensor, last: Tensor, weight: Tensor, keep: Tensor | None) -> Tensor:
    return _Projected.apply(first, last, weight, keep)


class _Projected(torch.autograd.Function):
    """(first x last) * keep, flattened, times weight transposed, and what it needs of memory asked for at once: a
    gradient of a weight of 36 MB costs more page faults than arithmetic."""

    @staticmethod
    def forward(ctx, first: Tensor, last: Tensor, weight: Tensor, keep: Tensor | None) -> Tensor:
        product = _product(first, last, keep)
        ctx.save_for_backward(first, last, weight, product)
        ctx.keep = keep
        return product.flatten(1) @ weight.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, last, weight, product = ctx.saved_tensors
        of_weight = torch.mm(gradient.T, product.flatten(1), out=output_like(weight))
        of_product = torch.mm(gradient, weight, out=output_like(product.flatten(1))).view_as(product)
        if ctx.keep is not None:
            of_product *= ctx.keep.view_as(product)
        return (of_product @ last[..., None])[..., 0], (first[:, None] @ of_product)[:, 0], of_weight, None


def _product(first: Tensor, last: Tensor, keep: Tensor | None) -> Tensor:
    """[B, P, Q]."""
    product = output_like(first[:, :, None].expand(-1, -1, last.shape[1]))
    torch.mul(first[:, :, None], last[:, None], out=product)
    return product if keep is None else product.mul_(keep.view_as(product))

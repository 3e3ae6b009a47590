"""A layer over the outer product of vectors, whose dropout is of single products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memofast.model.sequence.draws import Draws
from memofast.ops.library import output_like


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

"""Outer products of the vectors of all modalities, whole or of low rank.

Source: see `outer_product`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.fusion.fusion import CompatOptions, Fused, Fusion
from memofast.model.fusion.outer_product import LowRankLayer, OuterProductLayer, with_one


class TensorOptions(CompatOptions):
    """Of `TensorProduct`. width: of the layer over the products; dropout: of the products. compat: no such layer; the
    vector is all products, a learnt scalar stands for the constant and, in every place, for a missing modality."""

    kind: Literal["tensor"]
    width: Width = 64
    dropout: Dropout = 0.5


class LowRankOptions(CompatOptions):
    """Of `LowRank`. width: of the fused vector. compat: without the constant 1, with one bias, and what is missing is
    left out of the product."""

    kind: Literal["low_rank"]
    rank: Layers = 4
    width: Width = 128


class TensorProduct(Fusion):
    """A layer over the outer product of the vectors, each with a constant 1."""

    def __init__(self, options: TensorOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat, placeholders=not options.compat)
        self.compat = options.compat
        sizes = [width + 1 for width in self.widths.values()]
        self.width = prod(sizes) if self.compat else options.width
        if self.compat:
            self.constant = nn.Parameter(torch.ones(1))
        else:
            self.layer = OuterProductLayer(sizes, options.width, options.dropout)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        if not self.compat:
            return Fused(self.layer([with_one(one) for one in vectors.values()], draws))
        product = self.constant.new_ones(1, 1)
        for name, one in vectors.items():
            known = torch.where(there[name], one, self.constant)
            extended = torch.cat((known, self.constant.expand(len(one), 1)), 1)
            product = (product[:, :, None] * extended[:, None]).flatten(1)
        return Fused(product)


class LowRank(Fusion):
    """A layer of low rank over the outer product of the vectors, each with a constant 1."""

    def __init__(self, options: LowRankOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat, placeholders=not options.compat)
        self.compat, self.width = options.compat, options.width
        sizes = {name: width + (not self.compat) for name, width in self.widths.items()}
        self.layer = LowRankLayer(sizes, options.rank, options.width, one_bias=self.compat)
        for factors in self.layer.factors.values():
            nn.init.normal_(factors, std=factors.shape[1] ** -0.5)
            if not self.compat:  # a product of factors near 1 begins as about the sum of what modalities say
                nn.init.ones_(factors[:, 0])

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        if self.compat:
            return Fused(self.layer(vectors, there))
        return Fused(self.layer({name: with_one(one) for name, one in vectors.items()}))

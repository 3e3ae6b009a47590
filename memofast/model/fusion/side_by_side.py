"""Layers over the vectors of all modalities side by side, or over their mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.fusion.fusion import CompatOptions, Fused, Fusion, side_by_side
from memofast.model.fusion.layers import CommonWidth, GeluLayers


class LayeredOptions(CompatOptions):
    """width: of the fused vector. depth: linear layers to it, with GELU between; dropout: between them. compat: the
    original computes the same; it says in which order it reads the modalities."""

    width: Width = 128
    depth: Layers = 1
    dropout: Dropout = 0.1


class ConcatOptions(LayeredOptions):
    """Of `Concat`. depth: 0: the vectors side by side as they are, whatever width is."""

    kind: Literal["concat"] = "concat"
    depth: Annotated[int, Field(ge=0, le=1000)] = 1


class MeanOptions(LayeredOptions):
    """Of `Mean`. width: also of the maps of vectors before the mean, where they are of several widths."""

    kind: Literal["mean"] = "mean"


class Concat(Fusion):
    """Layers over the vectors side by side."""

    def __init__(self, options: ConcatOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat)
        joined = sum(widths.values())
        self.width = options.width if options.depth else joined
        self.layers = GeluLayers(joined, options.width, options.depth, options.dropout) if options.depth else None

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        joined = side_by_side(vectors)
        return Fused(joined if self.layers is None else self.layers(joined, draws))


class Mean(Fusion):
    """Layers over the mean of the vectors, what stands for missing ones included."""

    def __init__(self, options: MeanOptions, widths: Mapping[str, int]):
        super().__init__(widths, compat=options.compat)
        self.width = options.width
        self.common = CommonWidth(self.widths, options.width)
        self.layers = GeluLayers(self.common.width, options.width, options.depth, options.dropout)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        mean = torch.stack(list(self.common(vectors).values())).mean(0)
        return Fused(self.layers(mean, draws))

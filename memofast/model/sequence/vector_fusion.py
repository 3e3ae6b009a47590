"""A vector of each modality, and what joins them: late fusion, their outer product, or low-rank factors of it.

Source: MMSA 2.2.1's LF-DNN, TFN (Zadeh et al., EMNLP 2017) and LMF (Liu et al., ACL 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.fusion.outer_product import LowRankLayer, OuterProductLayer, with_one
from memofast.model.sequence.network import Network, Shape
from memofast.model.sequence.rows import Rows
from memofast.model.sequence.vectors import Perceptron, VectorEncoders, VectorOptions, names_of_layers


class LateFusion(VectorOptions):
    """fusion_width, fusion_dropout: of the layers over the vectors side by side."""

    fusion_width: Width = 128
    fusion_dropout: Dropout = 0.2


class LfDnnOptions(LateFusion):
    """Of `LfDnn`; those of its sub-networks and of its fusion."""

    kind: Literal["lf_dnn"] = "lf_dnn"
    text_width: Width = 256
    visual_dropout: Dropout = 0.2
    speech_dropout: Dropout = 0.2


class TensorFusion(VectorOptions):
    """fusion_width, fusion_dropout: of the layers over the vectors' outer product, each with a constant 1. bound:
    values lie between -bound and bound, by a sigmoid; None: anywhere."""

    fusion_width: Width = 64
    fusion_dropout: Dropout = 0.5
    bound: float | None = 3.0


class TfnOptions(TensorFusion):
    """Of `Tfn`; those of its sub-networks and of its fusion."""

    kind: Literal["tfn"] = "tfn"
    text_width: Width = 32
    speech_width: Width = 32
    visual_dropout: Dropout = 0.3
    speech_dropout: Dropout = 0.3


class LowRankFusion(VectorOptions):
    """rank: of the factors."""

    rank: Layers = 3


class LmfOptions(LowRankFusion):
    """Of `Lmf`; those of its sub-networks and of its fusion."""

    kind: Literal["lmf"] = "lmf"
    text_width: Width = 64
    visual_dropout: Dropout = 0.3
    speech_dropout: Dropout = 0.3


class SideBySide(Perceptron):
    """Layers over the vectors side by side."""

    state_names = names_of_layers("post_fusion_layer", "fusion")

    def __init__(self, options: LateFusion, widths: Mapping[str, int], shape: Shape):
        super().__init__(sum(widths.values()), options.fusion_width, shape.outputs, options.fusion_dropout)

    def forward(self, vectors: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """Args: vectors [B, width] by modality. Returns: [B, outputs]."""
        return super().forward(torch.cat(list(vectors.values()), 1), draws)


class OuterProduct(nn.Module):
    """Layers over the outer product of the vectors, each with a constant 1."""

    state_names = (
        (r"post_fusion_layer_1\.(.+)", r"fusion.product.\1"),
        (r"post_fusion_layer_2\.(.+)", r"fusion.hidden.\1"),
        (r"post_fusion_layer_3\.(.+)", r"fusion.output.\1"),
        (r"output_(range|shift)", ""),  # 6 and -3: a bound of 3
    )

    def __init__(self, options: TensorFusion, widths: Mapping[str, int], shape: Shape):
        super().__init__()
        width = options.fusion_width
        self.bound = options.bound if shape.kind == "regression" else None
        self.product = OuterProductLayer([1 + own for own in widths.values()], width, options.fusion_dropout)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, shape.outputs)

    def forward(self, vectors: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """Args: vectors [B, width] by modality. Returns: [B, outputs]."""
        joined = F.relu(self.product([with_one(one) for one in vectors.values()], draws))
        values = self.output(F.relu(self.hidden(joined)))
        return values if self.bound is None else 2 * self.bound * values.sigmoid() - self.bound


class Factors(LowRankLayer):
    """A layer over the outer product of the vectors, each with a constant 1, of low rank."""

    state_names = (
        (r"text_factor", "fusion.factors.text"),
        (r"video_factor", "fusion.factors.visual"),
        (r"audio_factor", "fusion.factors.speech"),
        (r"fusion_weights", "fusion.weights"),
        (r"fusion_bias", "fusion.bias"),
    )

    def __init__(self, options: LowRankFusion, widths: Mapping[str, int], shape: Shape):
        super().__init__({name: 1 + width for name, width in widths.items()}, options.rank, shape.outputs)

    def forward(self, vectors: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """Args: vectors [B, width] by modality. Returns: [B, outputs]."""
        return super().forward({name: with_one(one) for name, one in vectors.items()})


class VectorFusion(Network):
    """fuses: the class of what joins the vectors.

    compat: the mean of rows is over padding too, and text is read to the end of it.
    """

    fuses: ClassVar[type[nn.Module]]

    def __init__(self, options: VectorOptions, shape: Shape):
        super().__init__()
        self.encoders = VectorEncoders(options, shape)
        self.fusion = self.fuses(options, self.encoders.widths, shape)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        return Answers(self.fusion(self.encoders(rows, draws), draws))


class LfDnn(VectorFusion):
    """Layers over the vectors of all modalities side by side."""

    fuses = SideBySide
    state_names = VectorEncoders.state_names + SideBySide.state_names


class Tfn(VectorFusion):
    """Layers over the outer product of the vectors of all modalities."""

    fuses = OuterProduct
    state_names = VectorEncoders.state_names + OuterProduct.state_names


class Lmf(VectorFusion):
    """A layer of low rank over the outer product of the vectors of all modalities."""

    fuses = Factors
    state_names = VectorEncoders.state_names + Factors.state_names

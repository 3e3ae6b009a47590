"""Hidden faces and speech: predict their feature rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from memofast.data.view import View
from memofast.model.heads import Head
from memofast.objectives.objective import LossSum
from memofast.objectives.spans import MaskedFeatures, SpanOptions
from memofast.objectives.statistics import Statistics


class RegressionOptions(SpanOptions):
    """loss: of a predicted row beside the original one, `mse` and `l1` as means over its width, `cosine` 1 - cos."""

    loss: Literal["mse", "cosine", "l1"] = "mse"


class FeatureRegression(MaskedFeatures):
    """Mean squared error between predicted and original feature row, over its true width; or what `loss` says.

    Source: MEmoBERT's mspanrfr, mspansrfr, mrfr and msrfr; the other losses are ours.
    """

    Options = RegressionOptions
    predictor = "mean feature"

    @property
    def heads(self) -> Mapping[str, Head]:
        return {self.head: Head("rows", self.modality)}

    @property
    def rebuilds(self) -> tuple[str, ...]:
        return (self.modality,)

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        (prediction,), read = outputs, views[0].reads[self.name]
        wanted = views[0].batch.rows_of(self.modality)[read.labels, : prediction.shape[1]].float()
        return LossSum(read.sum(ROW_LOSSES[self.options.loss](prediction.float(), wanted)), read.count)

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read = views[0].reads[self.name]
        mean = statistics.mean_row(self.modality).to(read.rows.device)
        return self.loss([mean.expand(read.count, -1)], views)


ROW_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {  # [n, width] twice -> [n]
    "mse": lambda prediction, wanted: (prediction - wanted).square().mean(-1),
    "l1": lambda prediction, wanted: (prediction - wanted).abs().mean(-1),
    "cosine": lambda prediction, wanted: 1 - F.cosine_similarity(prediction, wanted, dim=-1),
}


class VisualRegression(FeatureRegression):
    modality = "visual"
    head = "visual_features"


class SpeechRegression(FeatureRegression):
    modality = "speech"
    head = "speech_features"

"""Prediction heads; each reads hidden rows [n, C] of its targets only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops
from memofast.model.configuration import MemoBertConfig


class HeadTransform(nn.Module):
    """LN(gelu(W h + b)), the part that all heads share in form."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Args: hidden [n, C]. Returns: [n, C]."""
        return self.norm(ops.bias_gelu(F.linear(hidden, self.dense.weight), self.dense.bias))


class TiedHead(nn.Module):
    """A transform, then a product with a weight of the embeddings; only the bias [outputs] is the head's own.

    For words the weight is the word table [vocab, C]; for features the transposed projection [width, C].
    """

    def __init__(self, config: MemoBertConfig, outputs: int):
        super().__init__()
        self.transform = HeadTransform(config)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Args: hidden [n, C]; weight [outputs, C]. Returns: [n, outputs]."""
        return F.linear(self.transform(hidden), weight, self.bias)


class ClassifierHead(nn.Module):
    """A transform, then a linear map to the logits of `classes` classes."""

    def __init__(self, config: MemoBertConfig, classes: int):
        super().__init__()
        self.transform = HeadTransform(config)
        self.classifier = nn.Linear(config.hidden_size, classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """Args: hidden [n, C]. Returns: [n, classes]."""
        return self.classifier(self.transform(hidden))


class PreTrainingHeads(nn.Module):
    """The heads of the published objectives: words, visual features, visual emotions, speech features."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.words = TiedHead(config, config.vocab_size)
        if config.visual_width:
            self.visual_features = TiedHead(config, config.visual_width)
            self.visual_emotions = ClassifierHead(config, config.visual_classes)
        if config.speech_width:
            self.speech_features = TiedHead(config, config.speech_width)

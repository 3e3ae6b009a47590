"""The DenseFace network: a DenseNet-BC over grey 64 x 64 faces with a 342-wide feature.

Structure after AIM3-RUC/MEmoBERT, code/denseface: stem of stride 2, three blocks of 16 layers, growth 12, bottleneck
48, halving transitions; 24 -> 216 -> 108 -> 300 -> 150 -> 342 channels at 32, 16 and 8 pixels (Huang et al., Densely
Connected Convolutional Networks, 2017).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 64
SIDES = (24, 32, 48, SIDE)  # of the pictures that a network may have been trained on
LAYER_WIDTHS = {"trans1": 216, "trans2": 300, "last": 342}
FEATURE_WIDTH = LAYER_WIDTHS["last"]
_STEM, _GROWTH, _BOTTLENECK, _LAYERS, _BLOCKS = 24, 12, 48, 16, 3


def shrink(pixels: Tensor, side: int) -> Tensor:
    """[n, 1, height, width] pixels to [n, 1, side, side]."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    return F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)


class _Layer(nn.Module):
    """BN, ReLU, 1x1 convolution to 48, BN, ReLU, 3x3 convolution to 12 new channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm_in = nn.BatchNorm2d(channels)
        self.squeeze = nn.Conv2d(channels, _BOTTLENECK, 1, bias=False)
        self.norm_mid = nn.BatchNorm2d(_BOTTLENECK)
        self.grow = nn.Conv2d(_BOTTLENECK, _GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(F.relu(self.norm_in(x), inplace=True))
        return self.grow(F.relu(self.norm_mid(x), inplace=True))


class _Block(nn.Module):
    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(_Layer(channels + i * _GROWTH) for i in range(_LAYERS))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            grown = F.dropout(layer(x), self.dropout, self.training) if self.dropout else layer(x)
            x = torch.cat([x, grown], 1)
        return x


class _Transition(nn.Module):
    """BN, ReLU, 1x1 convolution to half the channels, 2x2 average pool; also gives the mean over pixels of what follows
    ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.halve = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # the 1x1 convolution is linear and per pixel: pooling first gives the same with a quarter of the work
        pooled = F.avg_pool2d(F.relu(self.norm(x), inplace=True), 2)
        return self.halve(pooled), pooled.mean((2, 3))


class DenseNet(nn.Module):
    """Faces [n, 1, 64, 64] float, normalised -> feature [n, 342] and logits [n, classes]; without classes features
    alone.

    Channels lie last in memory: with few channels oneDNN's convolutions and batch norms are faster there than on
    planes.
    """

    def __init__(self, classes: int, dropout: float = 0.0):
        super().__init__()
        self.stem = nn.Conv2d(1, _STEM, 3, stride=2, padding=1, bias=False)
        stages: list[nn.Module] = []
        channels = _STEM
        for block in range(_BLOCKS):
            stages.append(_Block(channels, dropout))
            channels += _LAYERS * _GROWTH
            if block < _BLOCKS - 1:
                stages.append(_Transition(channels))
                channels //= 2
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, classes) if classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.activations(x)
        return found["last"], found["logits"]

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Means over pixels of what follows the ReLU of both transitions and of the tail, `trans1` [n, 216], `trans2`
        [n, 300] and `last` [n, 342]; `logits` [n, classes]."""
        x = self.stem(x).contiguous(memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        for stage in self.stages:
            if isinstance(stage, _Transition):
                x, found[f"trans{len(found) + 1}"] = stage(x)
            else:
                x = stage(x)
        found["last"] = F.relu(self.norm(x)).mean((2, 3))
        return found | ({"logits": self.head(found["last"])} if self.head else {})

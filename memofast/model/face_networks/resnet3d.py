"""A network of face clips: one convolution over pictures and time, then a residual network of each picture.

Structure after AIM3-RUC/MEmoBERT, uniterbackbone: convolution of 5 x 7 x 7 and stride 1 x 2 x 2 to 64 channels, batch
norm, ReLU, maximum of 3 x 3 with stride 2; stages of two basic blocks with 64, 128, 256 and 512 channels (He et al.,
Deep Residual Learning, 2016); mean over the pixels, 4 x 4 of them for faces of 112 x 112.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURE_WIDTH = 512
_CHANNELS = (64, 128, 256, 512)
_SPAN = 5  # pictures that the first convolution sees


class _Block(nn.Module):
    """BN(conv) of ReLU(BN(conv)) beside the input, whose size and channels a 1x1 convolution fits."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm_in = nn.BatchNorm2d(out)
        self.conv_out = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm_out = nn.BatchNorm2d(out)
        self.fit = None
        if stride > 1 or channels != out:
            self.fit = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        own = self.norm_out(self.conv_out(F.relu(self.norm_in(self.conv_in(x)), inplace=True)))
        return F.relu(own + (x if self.fit is None else self.fit(x)))


class ResNet3d(nn.Module):
    """Faces of several clips, one clip after the other, to a feature of each.

    The pictures that the first convolution sees are its input channels, so that a batch of clips of any lengths is one
    convolution.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(_SPAN, _CHANNELS[0], 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(_CHANNELS[0])
        blocks, channels = [], _CHANNELS[0]
        for out in _CHANNELS:
            blocks += [_Block(channels, out, 1 if out == _CHANNELS[0] else 2), _Block(out, out, 1)]
            channels = out
        self.blocks = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor, sample: Tensor) -> Tensor:
        """Args: pictures [n, 1, side, side] float; sample [n] int64, the clip of each. Returns: [n, 512]."""
        x = self.stem(neighbours(pictures, sample)).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu(self.norm(x), inplace=True), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


def neighbours(pictures: Tensor, sample: Tensor) -> Tensor:
    """Of each picture [n, 1, side, side] the two before, itself and the two after it as channels [n, 5, side, side];
    black beyond its clip's ends."""
    count, around = len(pictures), _SPAN // 2
    row = torch.arange(count, device=pictures.device)[:, None]
    row = row + torch.arange(-around, around + 1, device=pictures.device)
    beside = row.clamp(0, max(count - 1, 0))
    of_clip = (row == beside) & (sample[beside] == sample[:, None])
    return torch.where(of_clip[:, :, None, None], pictures[:, 0][beside], 0.0)

"""ResNet3d: clips of a batch, packed, are what a convolution over each of them alone gives."""

import torch
from torch.nn import functional as F

from memofast.model.face_networks.resnet3d import FEATURE_WIDTH, ResNet3d, neighbours


def pictures_of(*lengths: int, side: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    sample = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return torch.randn(sum(lengths), 1, side, side), sample


def test_the_first_convolution_is_one_over_space_and_time_of_each_clip():
    pictures, sample = pictures_of(3, 1, 6, side=9)
    stem = ResNet3d().stem
    found = F.conv2d(neighbours(pictures, sample), stem.weight, stride=2, padding=3)
    over_time = stem.weight[:, None].contiguous()  # [64, 1, 5, 7, 7]
    for clip in range(3):
        own = pictures[sample == clip].transpose(0, 1)[None]
        wanted = F.conv3d(own, over_time, stride=(1, 2, 2), padding=(2, 3, 3))[0].transpose(0, 1)
        torch.testing.assert_close(found[sample == clip], wanted, rtol=1e-4, atol=1e-4)


def test_a_row_depends_on_its_own_clip_alone():
    pictures, sample = pictures_of(4, 7, 2)
    network = ResNet3d().eval()
    with torch.no_grad():
        whole = network(pictures, sample)
        alone = network(pictures[sample == 1], sample[sample == 1])
    assert whole.shape == (13, FEATURE_WIDTH)
    torch.testing.assert_close(whole[sample == 1], alone, rtol=1e-4, atol=1e-5)
    pictures[sample == 1] += 1.0
    with torch.no_grad():
        changed = network(pictures, sample)
    torch.testing.assert_close(changed[sample != 1], whole[sample != 1], rtol=1e-4, atol=1e-5)
    assert (changed[sample == 1] - whole[sample == 1]).abs().max() > 1e-2


def test_a_batch_without_faces_has_no_rows_and_gradients_of_zero():
    network = ResNet3d().eval()
    rows = network(torch.zeros(0, 1, 24, 24), torch.zeros(0, dtype=torch.int64))
    assert rows.shape == (0, FEATURE_WIDTH)
    rows.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in network.parameters())

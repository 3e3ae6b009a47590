"""The classification loss against torch's own, hard and soft, weighted and smoothed."""

import pytest
import torch
import torch.nn.functional as F

from memofast.objectives.classification import balanced_weights, class_targets, classification_losses
from memofast.objectives.label_space import known


@pytest.fixture
def logits():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_hard_labels_and_unknown_ones(logits):
    label = torch.tensor([0, 3, -1, 2, -1, 1])
    targets = class_targets({"label": label}, 4)
    losses = classification_losses(logits, targets)
    assert known("single", targets).tolist() == [True, True, False, True, False, True]
    torch.testing.assert_close(losses, F.cross_entropy(logits, label, ignore_index=-1, reduction="none"))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_labels_with_class_weights(logits, smoothing):
    targets = torch.rand(6, 4, generator=torch.Generator().manual_seed(2)).softmax(-1)
    weights = torch.tensor([0.5, 1.0, 2.0, 0.0])
    losses = classification_losses(logits, class_targets({"emotions": targets}, 4), weights, smoothing)
    expected = F.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(losses, expected)


def test_a_batch_without_labels_has_loss_zero_and_gradients_zero(logits):
    nothing = torch.zeros(6, 4)
    losses = classification_losses(logits, nothing, smoothing=0.1)
    losses.sum().backward()
    assert not known("single", nothing).any() and losses.tolist() == [0.0] * 6 and not logits.grad.any()


def test_losses_are_float32_of_half_precision_outputs(logits):
    targets = class_targets({"label": torch.tensor([0, 3, 1, 2, 2, 1])}, 4)
    losses = classification_losses(logits.bfloat16(), targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, classification_losses(logits.bfloat16().float(), targets))


def test_balanced_weights():
    torch.testing.assert_close(balanced_weights(torch.tensor([6.0, 2.0, 0.0])), torch.tensor([2 / 3, 2.0, 0.0]))

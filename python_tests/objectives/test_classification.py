"""The classification loss against torch's own, hard and soft, weighted and smoothed."""

import pytest
import torch
import torch.nn.functional as F

from memofast.objectives.classification import balanced_weights, class_targets, classification_loss


@pytest.fixture
def logits():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_hard_labels_and_unknown_ones(logits):
    label = torch.tensor([0, 3, -1, 2, -1, 1])
    loss = classification_loss(logits, class_targets({"label": label}, 4))
    assert loss.count == 4
    torch.testing.assert_close(loss.total, F.cross_entropy(logits, label, ignore_index=-1, reduction="sum"))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_labels_with_class_weights(logits, smoothing):
    targets = torch.rand(6, 4, generator=torch.Generator().manual_seed(2)).softmax(-1)
    weights = torch.tensor([0.5, 1.0, 2.0, 0.0])
    loss = classification_loss(logits, class_targets({"emotions": targets}, 4), weights, smoothing)
    expected = F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss.total, expected)


def test_a_batch_without_labels_has_loss_zero_and_gradients_zero(logits):
    loss = classification_loss(logits, torch.zeros(6, 4), smoothing=0.1)
    loss.total.backward()
    assert loss.count == 0 and float(loss.total) == 0 and not logits.grad.any()


def test_accuracy_counts_the_likeliest_class():
    targets = torch.tensor([[0.4, 0.6], [0.9, 0.1], [0.0, 0.0]])
    loss = classification_loss(torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), targets)
    assert int(loss.metrics["accuracy"]) == 1 and loss.count == 2


def test_balanced_weights():
    torch.testing.assert_close(balanced_weights(torch.tensor([6.0, 2.0, 0.0])), torch.tensor([2 / 3, 2.0, 0.0]))

"""Mean losses equal those that training minimises."""

import numpy as np
import pytest
import torch

from memofast.errors import MemofastError
from memofast.metrics.mean_loss import mean_loss
from memofast.metrics.predictions import Predictions
from memofast.objectives.label_space import ERRORS, label_losses

IDS = tuple("abcde")


def test_of_one_class_of_several():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    truth = torch.tensor([2, 0, -1, 1, 2])
    found = Predictions("single", IDS, truth.numpy(), logits.softmax(1).float().numpy(), ("x", "y", "z"))
    wanted = torch.nn.functional.one_hot(truth.clamp(min=0), 3).float() * (truth >= 0)[:, None]
    losses = label_losses("single", logits.float(), wanted)
    assert mean_loss(found) == pytest.approx(float(losses[truth >= 0].mean()), rel=1e-5)


def test_of_several_classes():
    logits = torch.randn(5, 2, generator=torch.Generator().manual_seed(2))
    truth = torch.tensor([[1, 0], [0, 0], [1, 1], [torch.nan, torch.nan], [0, 1]])
    found = Predictions("multi", IDS, truth.numpy(), logits.sigmoid().numpy(), ("x", "y"))
    losses = label_losses("multi", logits, truth)
    assert mean_loss(found) == pytest.approx(float(losses[[0, 1, 2, 4]].mean()), rel=1e-5)


@pytest.mark.parametrize("error", ERRORS)
def test_of_values(error):
    values, truth = torch.tensor([0.3, -2.0, 1.5, 3.0, 0.0]), torch.tensor([0.0, 1.0, torch.nan, 2.5, -0.4])
    found = Predictions("regression", IDS, truth.numpy(), values.numpy())
    losses = label_losses("regression", values[:, None], truth[:, None], error=error)
    assert mean_loss(found, error) == pytest.approx(float(losses[[0, 1, 3, 4]].mean()), rel=1e-6)


def test_a_class_held_impossible_is_a_number_and_an_unknown_truth_none():
    sure = Predictions("single", ("a",), np.array([1]), np.array([[1, 0]], np.float32), ("x", "y"))
    assert 80 < mean_loss(sure) < 90
    with pytest.raises(MemofastError, match="none of 1 samples"):
        mean_loss(Predictions("regression", ("a",), np.array([np.nan], np.float32), np.zeros(1, np.float32)))

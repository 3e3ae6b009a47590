"""Distillation and the focal loss: the originals' digits, and what a queue of earlier answers changes."""

import numpy as np
import pytest
import torch

from memofast.objectives.classification import classification_losses
from memofast.objectives.distillation import AnswerQueue, dist_loss, feature_loss, soft_cross_entropy


@pytest.fixture
def golden(real_data):
    found = np.load(real_data.parent / "golden" / "companions" / "distillation_focal.npz")
    return lambda case: {
        name.removeprefix(f"{case}/"): torch.from_numpy(found[name]) for name in found.files if name.startswith(case)
    }


def check(loss_of, given, loss, grad, **tolerances):
    given = given.clone().requires_grad_()
    found = loss_of(given)
    tolerances = {"rtol": 1e-10, "atol": 1e-11} | tolerances
    torch.testing.assert_close(found, loss.to(found.dtype), **tolerances)
    torch.testing.assert_close(torch.autograd.grad(found, given)[0], grad.to(given.dtype), **tolerances)


@pytest.mark.parametrize(("case", "tau"), [("b8_c7", 4), ("b4_c6_t2", 2), ("b2_c7", 4), ("b1_c7", 4)])
def test_dist_as_the_meld_system(golden, case, tau):
    one = golden(f"dist/{case}")
    check(lambda s: dist_loss(s, one["teacher"], tau), one["student"], one["meld_loss"], one["meld_grad"])
    check(lambda s: dist_loss(s, one["teacher"], tau, 0, 1), one["student"], one["intra"], one["intra_grad"])
    # TelME adds its epsilon elsewhere
    telme = {"rtol": 1e-5, "atol": 2e-4}
    check(lambda s: dist_loss(s, one["teacher"], tau), one["student"], one["telme_loss"], one["telme_grad"], **telme)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_features_as_telme(golden, tau):
    one = golden(f"feature/t{tau}")
    check(lambda s: feature_loss(s, one["teacher"], tau), one["student"], one["loss"], one["grad"])


@pytest.mark.parametrize("gamma", [2.0, 0.5, 0.0])
def test_focal_as_the_meld_system(golden, gamma):
    """In fp32, as losses of labels are."""
    one = golden(f"focal/g{gamma}")
    wanted = torch.eye(7)[one["labels"]]
    check(
        lambda logits: classification_losses(logits, wanted, gamma=gamma).mean(), one["logits"],
        one["loss"], one["grad"], rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def test_weighted_cross_entropy_as_the_meld_system(golden):
    """Divided by the sum of weights, as torch does; in a training by the number of samples, which weights of mean 1
    make the same."""
    one = golden("weighted_ce")
    weights = (one["frequency"].sum() / one["frequency"]).float()
    wanted, total = torch.eye(7)[one["labels"]], weights[one["labels"]].sum()
    check(
        lambda logits: classification_losses(logits, wanted, weights).sum() / total, one["logits"],
        one["loss"], one["grad"], rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def test_focal_loss_of_a_certain_answer_has_a_finite_gradient():
    logits = torch.tensor([[200.0, 0, 0], [0, 30, 0]], requires_grad=True)
    classification_losses(logits, torch.eye(3)[:2], smoothing=0.1, gamma=0.5).sum().backward()
    assert torch.isfinite(logits.grad).all()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_two_samples_learn_between_samples_only_with_a_queue():
    student, teacher = random(2, 5).requires_grad_(), random(5, 2).T
    (alone,) = torch.autograd.grad(dist_loss(student, teacher, 4, 0, 1), student)
    assert alone.abs().max() < 1e-12
    earlier = random(3, 5).softmax(-1), random(5, 3).T.softmax(-1)
    (queued,) = torch.autograd.grad(dist_loss(student, teacher, 4, 0, 1, earlier), student)
    assert queued.abs().max() > 1e-3
    whole = [torch.cat((4 * rows.log(), given)) for rows, given in zip(earlier, (student, teacher), strict=True)]
    torch.testing.assert_close(dist_loss(student, teacher, 4, 0, 1, earlier), dist_loss(*whole, 4, 0, 1))


def test_a_queue_keeps_the_newest():
    queue = AnswerQueue(5, 2)
    assert queue.earlier()[0].shape == (0, 2)
    for number in range(3):
        queue.add(torch.full((2, 2), float(number)), torch.full((2, 2), 10.0 + number))
    student, teacher = queue.earlier()
    assert student[:, 0].tolist() == [2, 2, 1, 1, 0] and teacher[:, 1].tolist() == [12, 12, 11, 11, 10]
    queue.add(torch.full((9, 2), 7.0), torch.full((9, 2), 8.0))
    assert queue.earlier()[0].shape == (5, 2) and (queue.earlier()[1] == 8).all()


def test_soft_cross_entropy_is_least_at_the_teacher():
    teacher = random(4, 6)
    student = teacher.clone().requires_grad_()
    losses = soft_cross_entropy(student, teacher, 3)
    assert not torch.autograd.grad(losses.sum(), student)[0].abs().max() > 1e-12
    hard = soft_cross_entropy(random(6, 4).T, 1e6 * torch.eye(6, dtype=torch.float64)[:4])
    torch.testing.assert_close(hard, -random(6, 4).T.log_softmax(-1).diagonal())

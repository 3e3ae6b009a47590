"""Contrast by classes: the originals' digits, the closed form of momenta, and which anchors count."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from memofast.objectives.class_contrast import (
    momentum_of_differences,
    momentum_of_samples,
    polar_factor,
    prototype_contrast,
    qr_rows,
    supervised_contrast,
)


@pytest.fixture
def golden(real_data):
    def load(name):
        found = np.load(real_data.parent / "golden" / "companions" / f"{name}.npz")
        return {key: torch.from_numpy(found[key]) for key in found.files}

    return load


def of(parts, case):
    return {name.removeprefix(f"{case}/"): value for name, value in parts.items() if name.startswith(f"{case}/")}


def close(found, wanted):
    torch.testing.assert_close(found, wanted.to(found.dtype), rtol=1e-12, atol=1e-13)


def check_loss(z, labels, prototypes, temperature, form, loss, grad, **options):
    z = z.clone().requires_grad_()
    found = prototype_contrast(z, labels, prototypes, temperature, form, **options)
    close(found.loss, loss)
    (own,) = torch.autograd.grad(found.loss, z)
    close(own, grad)
    return found


@pytest.mark.parametrize(("case", "temperature"), [("coupled", 0.05), ("decoupled", 0.05), ("decoupled_temp08", 0.08)])
def test_spcl_as_the_original(golden, case, temperature):
    one = of(golden("spcl_original"), case)
    exactly = 1 + 1e-8 / float(one["kept"].sum())  # the original divides by the number of anchors + 1e-8
    found = check_loss(
        one["z"], one["labels"], one["prototypes"], temperature, case.removesuffix("_temp08"),
        one["loss"] * exactly, one["grad_z"] * exactly, count_all=True,
    )  # fmt: skip
    close(found.anchors, one["row_losses"])
    assert torch.equal(found.counted, one["kept"].bool())


@pytest.mark.parametrize("batch", range(3))
def test_spcl_of_the_meld_system(golden, batch):
    """All rows are anchors, prototypes too."""
    one = of(golden("meld_losses_head"), f"spcl_meld/{batch}")
    given = one["z"], one["labels"], one["prototypes"], 0.08
    options = {"prototypes_as_anchors": True, "count_all": True}
    check_loss(*given, "coupled", one["loss"], one["grad_z"], **options)
    check_loss(*given, "decoupled", one["decoupled_loss"], one["decoupled_grad_z"], **options)


@pytest.mark.parametrize("factor", ["polar", "qr"])
def test_apcl_of_the_meld_system(golden, factor):
    """Five batches: momenta, targets, prototypes, losses and gradients."""
    batches = of(golden("meld_losses_head"), "apcl_head_g0.99")
    wanted = batches if factor == "qr" else of(golden("apcl_polar"), "polar_g0.99")
    prototypes, momentum = batches["prototypes0"], torch.zeros_like(batches["prototypes0"])
    for number in range(5):
        one, there = of(batches, str(number)), of(wanted, str(number))
        momentum = momentum_of_differences(momentum, one["z"], one["labels"], prototypes, 0.99, 0.5)
        close(momentum, there["momentums"])
        close(prototypes + momentum, there["target"])
        before = prototypes
        prototypes = {"polar": polar_factor, "qr": qr_rows}[factor](prototypes + momentum)
        torch.testing.assert_close(prototypes, there["prototypes"], rtol=1e-10, atol=1e-11)
        cosines = F.cosine_similarity(prototypes, before + momentum)
        assert (cosines > 0).all() == (factor == "polar" or number == 0)  # householder's signs turn them round
        check_loss(
            one["z"], one["labels"], there["prototypes"], 0.08, "decoupled", there["loss"], there["grad_z"],
            prototypes_as_anchors=True, count_all=True,
        )  # fmt: skip


def test_first_published_apcl(golden):
    batches = of(golden("apcl_first"), "apcl_first_b0.1_g0.1")
    prototypes, momentum = batches["prototypes0"], torch.zeros_like(batches["prototypes0"])
    for number in range(5):
        one = of(batches, str(number))
        momentum = momentum_of_samples(momentum, one["z"], one["labels"], 0.1, 0.1)
        close(momentum, one["momentums"])
        prototypes = prototypes + momentum
        close(prototypes, one["prototypes"])
        check_loss(
            one["z"], one["labels"], prototypes, 0.08, "decoupled", one["loss"], one["grad_z"],
            prototypes_as_anchors=True, count_all=True,
        )  # fmt: skip


def test_closed_momenta_are_the_loop():
    generator = torch.Generator().manual_seed(1)
    z, prototypes, momentum = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (11, 4, 4))
    labels = torch.tensor([2, 0, 0, 2, 2, 1, 0, 2, 2, 2, 0])  # the last class is absent
    differences, samples = momentum.clone(), momentum.clone()
    for one, label in zip(z, labels, strict=True):
        differences[label] = 0.9 * differences[label] + 0.3 * 0.1 * (one - prototypes[label])
        samples[label] = 0.2 * samples[label] + 0.7 * (one - samples[label])
    close(momentum_of_differences(momentum, z, labels, prototypes, 0.9, 0.3), differences)
    close(momentum_of_samples(momentum, z, labels, 0.2, 0.7), samples)


def test_polar_factor_is_the_same_in_any_order_of_classes():
    rows = torch.randn(5, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    order, found = torch.tensor([3, 0, 4, 2, 1]), polar_factor(rows)
    close(polar_factor(rows[order]), found[order])
    close(found @ found.T, torch.eye(5))


def pairs_of(z, labels, temperature):
    """Supervised contrast, pair by pair."""
    cosines, losses = F.cosine_similarity(z[:, None], z[None], dim=-1) / temperature, []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        if positives:
            whole = torch.stack([cosines[i, j] for j in others]).logsumexp(0)
            losses.append(torch.stack([whole - cosines[i, j] for j in positives]).mean())
    return torch.stack(losses).mean()


def test_supervised_contrast_is_the_mean_over_anchors_that_have_positives():
    z = torch.randn(9, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 2, 2, 0, 1, 2, 0, 4, 4])
    found, wanted = supervised_contrast(z, labels, 5, 0.1), pairs_of(z, labels, 0.1)
    torch.testing.assert_close(found.loss, wanted, rtol=1e-7, atol=0)
    assert found.counted.tolist() == [True] * 4 + [False] + [True] * 4
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (found.loss, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_without_any_positive_the_loss_is_zero_with_a_gradient_of_zeros(rows):
    z = torch.randn(rows, 5, generator=torch.Generator().manual_seed(4)).requires_grad_()
    found = supervised_contrast(z, torch.arange(rows), 2, 0.1)
    assert found.loss.item() == 0 and not found.counted.any()
    assert not torch.autograd.grad(found.loss, z)[0].any()


@pytest.mark.parametrize("anchors", [False, True])
def test_of_no_samples_prototypes_make_no_loss(anchors):
    z = torch.randn(0, 8, requires_grad=True)
    found = prototype_contrast(z, torch.arange(0), torch.eye(8)[:3], 0.08, prototypes_as_anchors=anchors)
    assert found.loss.item() == 0 and torch.autograd.grad(found.loss, z)[0].shape == (0, 8)


@pytest.mark.parametrize("form", ["coupled", "decoupled"])
def test_prototypes_without_a_sample_count_only_as_the_original_counts(form):
    """Two of seven classes in a batch: the others' prototypes have no positive."""
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    prototypes = torch.linalg.qr(torch.randn(8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6)))[0]
    given = z, torch.tensor([1, 4]), prototypes.T.contiguous(), 0.08, form
    ours, original = (prototype_contrast(*given, prototypes_as_anchors=True, count_all=all) for all in (False, True))
    assert ours.counted.nonzero().flatten().tolist() == [0, 1, 3, 6]
    assert torch.equal(original.counted, original.anchors > {"coupled": 0.3, "decoupled": 0}[form])
    close(ours.loss, ours.anchors[ours.counted].mean())
    if form == "coupled":
        close(original.anchors[[2, 4, 5, 7, 8]], torch.full((5,), -np.log(1e-8), dtype=torch.float64))


def test_single_precision_is_near_the_double_one():
    generator = torch.Generator().manual_seed(7)
    z, prototypes = (torch.randn(n, 64, generator=generator, dtype=torch.float64) for n in (96, 7))
    labels = torch.randint(0, 7, (96,), generator=generator)
    for form in ("coupled", "decoupled"):
        wide = prototype_contrast(z, labels, prototypes, 0.05, form).loss
        torch.testing.assert_close(
            prototype_contrast(z.float(), labels, prototypes.float(), 0.05, form).loss.double(), wide, rtol=1e-5, atol=0
        )

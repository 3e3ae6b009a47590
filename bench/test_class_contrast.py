"""Prototype contrast of a batch, forward and backward, against its plain PyTorch form of one product.

Rules: 512 samples of width 768, seven classes, temperature .08, fp32, all rows anchors, as APCL has it; the plain form
makes one product of unit rows and sums over masks of pairs. The original's form, which expands all pairs over their
width, takes 9.5 s and 5 GiB there, and is not run. `longest` is the number of anchors.
"""

import pytest
import torch
import torch.nn.functional as F
from contests import stage

from memofast.objectives.class_contrast import prototype_contrast

SAMPLES, WIDTH, CLASSES, TEMPERATURE = 512, 768, 7, 0.08


def one_product(z, labels, prototypes, form):
    everything, labels = torch.cat((z, prototypes)), torch.cat((labels, torch.arange(len(prototypes))))
    unit = F.normalize(everything, dim=-1)
    own = torch.eye(len(unit), dtype=torch.bool)
    scores = ((1 + unit @ unit.T) / 2 + 1e-8).masked_fill(own, 0.0) / TEMPERATURE
    scores = scores - scores.detach().max()
    same = labels[:, None] == labels
    positive, negative, exponentials = same & ~own, ~same, scores.exp()
    counts = positive.sum(1)
    if form == "coupled":
        mine, others = ((exponentials * mask).sum(1) for mask in (positive, negative))
        losses, least = -(mine / (mine + others) / counts + 1e-8).log(), 0.3
    else:
        to_own = (scores * positive).sum(1) / counts
        losses, least = ((exponentials * negative).sum(1) + 1e-8).log() - to_own, 0.0
    counted = losses > least
    return (losses * counted).sum() / counted.sum()


@pytest.mark.parametrize("form", ["coupled", "decoupled"])
def test_prototype_contrast(on_cpu, form):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    prototypes = torch.linalg.qr(torch.randn(WIDTH, CLASSES, generator=generator))[0].T.contiguous()

    def side(loss_of):
        def made(number):
            z = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(number)).requires_grad_()
            return stage(lambda: loss_of(z), (z,), torch.ones(()), True)

        return made

    on_cpu(
        side(lambda z: prototype_contrast(z, labels, prototypes, TEMPERATURE, form, prototypes_as_anchors=True).loss),
        {"one_product": side(lambda z: one_product(z, labels, prototypes, form))},
        bytes_of_one=4 * SAMPLES * WIDTH,
        rows=SAMPLES,
        longest=SAMPLES + CLASSES,
        flop=6 * (SAMPLES + CLASSES) ** 2 * WIDTH,
        gigabytes=2 * 4 * SAMPLES * WIDTH / 1e9,
    )

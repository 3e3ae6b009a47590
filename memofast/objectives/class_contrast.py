"""Contrast of samples by their classes: supervised contrast, and contrast with a prototype of each class.

Representations z [B, D], labels [B] int64 and prototypes [C, D], computed in fp32 or wider; all similarities come from
one product of unit rows, and sums over the members of classes from products with their one-hot matrix.

Sources: Khosla et al., "Supervised contrastive learning", NeurIPS 2020; Song et al., "Supervised prototypical
contrastive learning for emotion recognition in conversation" (SPCL), EMNLP 2022; its adaptive prototypes (APCL) are
those of emotion-recognition-lab/emotion-recognition.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_SMALL = 1e-8  # added to similarities and to sums before their logarithm, as in SPCL
_LEAST = {"coupled": 0.3, "decoupled": 0.0}  # anchors of no larger loss do not count


class Contrast(NamedTuple):
    """loss: scalar, the mean over the anchors that count, 0 where none does. anchors [anchors]: the loss of each one;
    counted [anchors] bool."""

    loss: Tensor
    anchors: Tensor
    counted: Tensor


class _Cosines(torch.autograd.Function):
    """U U' [n, n], whose gradient is one product where autograd, which does not know that both sides are one, makes
    two."""

    @staticmethod
    def forward(ctx, unit: Tensor) -> Tensor:
        ctx.save_for_backward(unit)
        return unit @ unit.T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (unit,) = ctx.saved_tensors
        return (grad + grad.T) @ unit


def supervised_contrast(z: Tensor, labels: Tensor, classes: int, temperature: float) -> Contrast:
    """-log of the softmax over all other samples of cosine / temperature, mean over those of the anchor's class; an
    anchor that is alone in its class does not count."""
    unit = F.normalize(z, dim=-1)
    scores = _Cosines.apply(unit) / temperature
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    members = _one_hot(labels, z, classes)
    of_class = members @ members.sum(0)  # how many are of the anchor's class, itself among them
    to_class = (unit * (members @ (members.T @ unit))).sum(-1) - unit.square().sum(-1)
    positives = of_class - 1
    anchors = scores.masked_fill(own, -torch.inf).logsumexp(-1) - to_class / temperature / positives.clamp(min=1)
    return _mean_over(anchors.nan_to_num(neginf=0.0), positives > 0)


def prototype_contrast(
    z: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    temperature: float,
    form: Literal["coupled", "decoupled"] = "coupled",
    *,
    prototypes_as_anchors: bool = False,
    count_all: bool = False,
) -> Contrast:
    """SPCL's loss over samples and prototypes, similarities being (1 + cosine) / 2 over the temperature.

    `coupled`: -log of the share of positives in the sum of exponentials, divided by their number, over anchors above
    .3. `decoupled`: the logarithm of the sum over negatives less the mean over positives, over anchors above 0.
    prototypes_as_anchors: as APCL has it. count_all: anchors without positives too, as the originals do; without it
    they do not count.
    """
    if not len(z):  # as where a curriculum chose nothing of a batch
        nothing = z.sum(-1)
        return Contrast(nothing.sum(), nothing, nothing > 0)
    everything, classes = torch.cat((z, prototypes)), len(prototypes)
    labels = torch.cat((labels, torch.arange(classes, device=labels.device)))
    unit, members = F.normalize(everything, dim=-1), _one_hot(labels, everything, classes)
    anchors = len(everything) if prototypes_as_anchors else len(z)
    scores = ((1 + _Cosines.apply(unit)[:anchors]) / 2 + _SMALL) / temperature
    scores = scores.masked_fill(torch.eye(*scores.shape, dtype=torch.bool, device=z.device), 0.0)
    largest = scores.detach().max()
    scores = scores - largest
    own_class, mine = members[:anchors], members[:anchors].bool()
    sums = scores.exp() @ members  # an anchor is no pair of its own, and is taken out where its class is summed
    positives = own_class @ members.sum(0) - 1
    of_others = sums.masked_fill(mine, 0.0).sum(-1)
    if form == "coupled":
        of_own = ((sums * own_class).sum(-1) - (-largest).exp()).clamp(min=0)
        share = of_own / (of_own + of_others) / (positives + _SMALL)
        losses = -(share + _SMALL).log()
    else:
        to_own = ((scores @ members * own_class).sum(-1) + largest) / (positives + _SMALL)
        losses = (of_others + _SMALL).log() - to_own
    counted = losses.detach() > _LEAST[form]
    return _mean_over(losses, counted if count_all else counted & (positives > 0))


def decayed_sums(z: Tensor, labels: Tensor, classes: int, rate: float) -> tuple[Tensor, Tensor]:
    """What m <- rate m + z_i, for the samples of each class in their order, makes of m: the factor of the m there was
    [C], and what is added to it [C, D]."""
    members = _one_hot(labels, z, classes).T  # [C, B]
    after = members.flip(1).cumsum(1).flip(1) - members  # members of the class behind each sample
    return torch.pow(rate, members.sum(1)), (members * torch.pow(rate, after)) @ z


def momentum_of_differences(
    momentum: Tensor, z: Tensor, labels: Tensor, prototypes: Tensor, gamma: float, alpha: float
) -> Tensor:
    """m_y <- gamma m_y + alpha (1 - gamma) (z_i - p_y), sample by sample, in closed form; momentum [C, D]."""
    kept, added = decayed_sums(z, labels, len(momentum), gamma)
    return kept[:, None] * momentum + alpha * (1 - gamma) * added - alpha * (1 - kept[:, None]) * prototypes


def momentum_of_samples(momentum: Tensor, z: Tensor, labels: Tensor, beta: float, gamma: float) -> Tensor:
    """m_y <- beta m_y + gamma (z_i - m_y), sample by sample, in closed form; momentum [C, D]."""
    kept, added = decayed_sums(z, labels, len(momentum), beta - gamma)
    return kept[:, None] * momentum + gamma * added


def polar_factor(rows: Tensor) -> Tensor:
    """(T T')^-1/2 T: the orthonormal rows nearest to T [C, D], the same in whatever order the classes are."""
    wide = rows.double()
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    least = values.amax() * torch.finfo(torch.float64).eps * len(rows)
    return ((vectors * values.clamp(min=least).rsqrt()) @ vectors.T @ wide).to(rows.dtype)


def qr_rows(rows: Tensor) -> Tensor:
    """Rows of Q of T' = Q R, with the signs that Householder's reflections leave."""
    return torch.linalg.qr(rows.T)[0].T.contiguous()


def _one_hot(labels: Tensor, like: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels, classes).to(like.dtype)


def _mean_over(losses: Tensor, counted: Tensor) -> Contrast:
    total = torch.where(counted, losses, 0.0).sum()
    return Contrast(total / counted.sum().clamp(min=1), losses, counted)

"""Prototypes of classes that change while a model learns, as modules whose state is saved with a checkpoint: pools of
earlier representations (SPCL), and prototypes moved by a momentum (APCL). Sources: see `class_contrast`."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.objectives.class_contrast import momentum_of_differences, momentum_of_samples, polar_factor, qr_rows
from memofast.ops.philox import Purpose, draw, stream_key

_SUPPORT, _REPLACED, _CURRICULUM = range(3)  # sites of draws


def orthonormal_rows(classes: int, width: int, seed: int) -> Tensor:
    """Rows [classes, width] in random directions, each at right angles to the others."""
    return nn.init.orthogonal_(torch.empty(classes, width), generator=torch.Generator().manual_seed(seed))


class ClassPools(nn.Module):
    """A pool of earlier representations for each class, whose mean over some of them is the class's prototype.

    Args: size: most of a pool, replaced at random. support: of which a prototype is made; a class with fewer has its
    centre for a prototype. centres [C, D]: at the beginning.
    """

    def __init__(self, centres: Tensor, size: int, support: int):
        super().__init__()
        self.size, self.support = size, support
        self.register_buffer("centres", centres)
        self.register_buffer("members", centres.new_zeros(len(centres), size, centres.shape[1]))
        self.register_buffer("counts", torch.zeros(len(centres), dtype=torch.int64))

    @torch.no_grad()
    def begin(self, centres: Tensor) -> None:
        """Empty every pool but for its class's centre, one of centres [C, D]."""
        self.centres.copy_(centres)
        self.members.zero_()
        self.members[:, 0] = centres
        self.counts.fill_(1)

    @torch.no_grad()
    def prototypes(self, rng: Tensor) -> Tensor:
        """[C, D]; rng [2] int64: seed and update."""
        found, words = self.centres.clone(), _words(rng, _SUPPORT, len(self.members), self.size)
        for number, count in enumerate(self.counts.tolist()):
            if count >= self.support:
                chosen = words[number, :count].argsort()[: self.support]
                found[number] = self.members[number, chosen].mean(0)
        return found

    @torch.no_grad()
    def add(self, z: Tensor, labels: Tensor, rng: Tensor) -> None:
        """Put representations [n, D] into the pools of their classes; of those there and new ones that are too many
        random ones go."""
        words = _words(rng, _REPLACED, len(self.members), self.size + len(z))
        for number in labels.unique().tolist():
            new, count = z[labels == number], int(self.counts[number])
            places = torch.arange(count, min(count + len(new), self.size), device=z.device)
            if (every := count + len(new)) > self.size:
                kept = torch.zeros(every, dtype=torch.bool, device=z.device)
                kept[words[number, :every].argsort()[: self.size]] = True
                new = new[kept[count:]]
                places = torch.cat((places, (~kept[:count]).nonzero().flatten()))  # of those that go
            self.members[number, places] = new
            self.counts[number] = min(every, self.size)


class AdaptivePrototypes(nn.Module):
    """A prototype for each class, moved by a momentum of its samples.

    Args: prototypes [C, D]: orthonormal, at the beginning. form: `head`: gamma, alpha; orthonormal again after every
    batch, `orthogonalise` says how. `first`: beta, gamma, as published first; prototypes grow.
    """

    def __init__(
        self,
        prototypes: Tensor,
        form: Literal["head", "first"],
        gamma: float,
        alpha: float,
        beta: float,
        orthogonalise: Literal["polar", "qr"],
    ):
        super().__init__()
        self.form, self.gamma, self.alpha, self.beta = form, gamma, alpha, beta
        self.orthogonalise = {"polar": polar_factor, "qr": qr_rows}[orthogonalise]
        self.register_buffer("prototypes", prototypes)
        self.register_buffer("momentum", torch.zeros_like(prototypes))

    @torch.no_grad()
    def move(self, z: Tensor, labels: Tensor) -> Tensor:
        """The prototypes [C, D] after samples [n, D]; those of absent classes go on by their momentum."""
        if self.form == "first":
            self.momentum.copy_(momentum_of_samples(self.momentum, z, labels, self.beta, self.gamma))
            self.prototypes.add_(self.momentum)
        else:
            moved = momentum_of_differences(self.momentum, z, labels, self.prototypes, self.gamma, self.alpha)
            self.momentum.copy_(moved)
            self.prototypes.copy_(self.orthogonalise(self.prototypes + moved))
        return self.prototypes.clone()


class Curriculum(nn.Module):
    """Which training samples learn in an epoch, from the easy to the hard ones.

    A sample is the harder the farther it is from its class's centre, relative to all centres. In the order of that it
    takes part with a probability that is linear from 1 - e / E to e / E in epoch e of E, from 0. Source: SPCL.
    """

    def __init__(self, keys: Tensor, epochs: int):
        """keys [n] int64, ascending: of the training samples."""
        super().__init__()
        self.epochs = epochs
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("chosen", torch.ones(len(keys), dtype=torch.bool))

    @torch.no_grad()
    def begin(self, epoch: int, distances: Tensor, keys: Tensor, rng: Tensor) -> None:
        """Choose for an epoch, from 1. distances [m], keys [m]: of samples, the mean where one is there several times;
        those that are not take no part."""
        places = torch.searchsorted(self.keys, keys)
        sums = torch.zeros(len(self.keys), dtype=torch.float64, device=keys.device)
        counts = torch.zeros_like(sums).index_add_(0, places, torch.ones_like(distances, dtype=torch.float64))
        sums.index_add_(0, places, distances.double())
        there = counts.nonzero().flatten()
        order = there[(sums[there] / counts[there]).argsort(stable=True)]
        begun = (epoch - 1) / self.epochs
        shares = torch.linspace(1 - begun, begun, len(order), dtype=torch.float64, device=keys.device)
        key = stream_key(rng, Purpose.POOL, _CURRICULUM)
        nothing = torch.zeros_like(order)
        words = draw(key, self.keys[order], nothing, nothing)[:, 0]
        self.chosen.fill_(False)
        self.chosen[order] = words.double() < shares * 2**32

    def of(self, keys: Tensor) -> Tensor:
        """Which of these samples take part [n] bool; keys [n] int64, all of them of the training."""
        return self.chosen[torch.searchsorted(self.keys, keys)]


def class_means(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """[C, D] from [n, D]; zeros where a class has no sample."""
    members = F.one_hot(labels, classes).to(z.dtype)
    return members.T @ z / members.sum(0).clamp(min=1)[:, None]


def difficulties(z: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Distance (1 - cosine) / 2 of each sample [n] to its class's centre over the sum of those to all centres."""
    distances = (1 - F.normalize(z, dim=-1) @ F.normalize(centres, dim=-1).T) / 2
    return distances.gather(1, labels[:, None])[:, 0] / distances.sum(1)


def _words(rng: Tensor, site: int, classes: int, count: int) -> Tensor:
    """A random word for each of the members of each class's pool [classes, count]."""
    number = torch.arange(classes, device=rng.device)[:, None]
    positions = torch.arange(count, device=rng.device)[None]
    return draw(stream_key(rng, Purpose.POOL, site), number, positions, torch.zeros_like(positions))[..., 0]

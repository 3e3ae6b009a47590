"""Whose rows a sample may come to show: any other's, those of another class or of its own, or the most similar of
some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memofast.ops.philox import below, draw, stream_key

_AT_ONCE = 1024  # samples whose candidates are compared


@dataclass(frozen=True)
class Candidates:
    """A pool in an order in which every sample has one run that is near to it: itself, or its class.

    order [m] int64: indices into the split. begin, end [k] int64: places in the order, of the run of each sample.
    """

    order: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    @classmethod
    def others(cls, pool: np.ndarray, indices: np.ndarray) -> Candidates:
        """The run of a sample is itself, where it is one of the pool."""
        at = np.searchsorted(pool, indices)
        inside = (at < len(pool)) & (pool[np.minimum(at, len(pool) - 1)] == indices)
        return cls(pool, at, at + inside)

    @classmethod
    def by_class(cls, pool: np.ndarray, indices: np.ndarray, classes: np.ndarray) -> Candidates:
        """The run of a sample is its class. classes [n] int64: of all samples of the split."""
        order = pool[np.argsort(classes[pool], kind="stable")]
        ordered = classes[order]
        return cls(
            order, np.searchsorted(ordered, classes[indices]), np.searchsorted(ordered, classes[indices], side="right")
        )

    def outside(self, words: Tensor) -> np.ndarray:
        """One of the pool that is not of the sample's run, each as likely. words [k] or [k, N] int64, of 32 bits."""
        begin, end = (places.reshape(-1, *[1] * (words.dim() - 1)) for places in (self.begin, self.end))
        drawn = below(words, torch.from_numpy(len(self.order) - (end - begin))).numpy()
        return self.order[drawn + np.where(drawn >= begin, end - begin, 0)]

    def inside(self, words: Tensor) -> np.ndarray:
        """One of the sample's run, each as likely; -1 where that is empty. words [k] int64, of 32 bits."""
        size = self.end - self.begin
        drawn = self.begin + below(words, torch.from_numpy(size)).numpy()
        return np.where(size > 0, self.order[np.minimum(drawn, len(self.order) - 1)], -1)


def candidate_words(rng: Tensor, purpose: int, site: int, keys: Tensor, count: int) -> Tensor:
    """Words [k, count] for so many candidates of each sample: those of positions from 1 on, as position 0 is drawn for
    other decisions. rng [2] int64, seed and epoch; keys [k] int64."""
    positions = torch.arange(1, 1 + -(-count // 4))
    return draw(stream_key(rng, purpose, site), keys[:, None], positions, torch.zeros(1, dtype=torch.int64)).flatten(1)[
        :, :count
    ]


def cosines(rows: np.ndarray, pool: np.ndarray, indices: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """How alike the rows of each sample and of its candidates [k, N] are, less their mean over the pool: [k, N]. rows
    [n, width]: of all samples of the split.

    Rounded, so that the order in which a processor adds does not matter.
    """
    rows = rows - rows[pool].mean(0)
    found = np.empty(candidates.shape)
    for start in range(0, len(indices), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        own, theirs = rows[indices[part]].astype(np.float64), rows[candidates[part]].astype(np.float64)
        norms = np.linalg.norm(own, axis=-1)[:, None] * np.linalg.norm(theirs, axis=-1)
        found[part] = np.einsum("kw,knw->kn", own, theirs) / np.maximum(norms, 1e-12)
    return np.round(found, 6)


def most_alike(keys: np.ndarray, candidates: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Of each sample's candidates [k, N] the one that is most alike [k], of equal ones that of the smallest key. keys
    [n] int64: of all samples of the split."""
    best = np.where(alike == alike.max(1, keepdims=True), keys[candidates], np.iinfo(np.int64).max).argmin(1)
    return candidates[np.arange(len(candidates)), best]

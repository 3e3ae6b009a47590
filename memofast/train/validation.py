"""Validation: every objective on held-out samples with masks that never change, the model beside its trivial
predictor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from memofast import objectives
from memofast.data import Capacity, PackedBatch, Split, View, epoch
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError
from memofast.objectives import Objective, Statistics
from memofast.objectives.assignment import rows_shown
from memofast.ops.philox import Purpose
from memofast.train.tally import Key, Tally, means

_FITTED = 20_000  # samples of a corpus that its trivial predictors see

Scores = dict[Key, dict[str, float]]  # by (corpus, objective): loss, targets, metrics, trivial


class HeldOut:
    """The held-out part of one corpus.

    Args: split; names: objectives to score; capacity: of a batch; samples: most samples, from the split's beginning
        (None: all).
    """

    def __init__(self, split: Split, names: tuple[str, ...], capacity: Capacity, samples: int | None):
        self.corpus, self.names = split.corpus.name, names
        self._split, self._capacity, self._samples = split, capacity, samples

    def views(self, built: Mapping[str, Objective], seed: int, rank: int = 0, world: int = 1) -> Iterator[list[View]]:
        """This rank's batches, each seen by one objective at a time; masks and partners depend on the seed alone."""
        rng, shown = objectives.validation_rng(seed), {name: self._shown(built[name], seed) for name in self.names}
        own = [name for name in self.names if shown[name] is None]
        for whose, names in [(None, own), *((places, [name]) for name, places in shown.items() if places is not None)]:
            if not names:
                continue
            batches = _beginning(self._split, self._capacity, self._samples, whose)
            for number, batch in enumerate(batches):
                if number % world == rank:
                    for name in names:
                        yield objectives.views_for(batch, built[name], rng, Purpose.VALIDATION_MASK)

    def _shown(self, objective: Objective, seed: int) -> Mapping[str, np.ndarray] | None:
        everyone = np.arange(len(self._split))
        pool = np.flatnonzero(objective.eligible(self._split.facts))
        return objectives.places_of(
            {objective.name: torch.from_numpy(objective.eligible(self._split.facts))}, {objective.name: objective},
            self._split, pool, everyone, seed, 0, Purpose.VALIDATION_PARTNER,
        )  # fmt: skip


def fit_statistics(split: Split, capacity: Capacity, vocabulary: int, widths: Mapping[str, int]) -> Statistics:
    """What trivial predictors know of a corpus, from the beginning of its training data.

    Raises: `MemofastError` for word pieces that the model's vocabulary does not have.
    """
    statistics = Statistics(vocabulary, widths)
    for batch in _beginning(split, capacity, _FITTED):
        if (largest := int(batch.token_ids.max())) >= vocabulary:
            raise MemofastError(
                f"corpus {split.corpus.path} has word piece {largest}, but the model's vocabulary ends at "
                f"{vocabulary - 1}; set model.vocab_size to that of the tokenizer"
            )
        statistics.add(batch)
    return statistics


def score_trivial(
    parts: Sequence[tuple[HeldOut, Statistics]], built: Mapping[str, Objective], seed: int
) -> dict[Key, float]:
    """Mean loss of the trivial predictors at the same targets the model is scored at; objectives without one are left
    out."""
    tally = Tally(keys([held_out for held_out, _ in parts]), built, torch.device("cpu"))
    for held_out, statistics in parts:
        for views in held_out.views(built, seed):
            losses = {name: built[name].trivial(statistics, views) for name in views[0].readers}
            tally.add(held_out.corpus, {name: loss for name, loss in losses.items() if loss is not None})
    return {key: values["loss"] for key, values in means(tally.sums()).items()}


def keys(held_out: list[HeldOut]) -> list[Key]:
    return [(part.corpus, name) for part in held_out for name in part.names]


def relative_loss(scores: Scores, weights: Mapping[Key, float]) -> float:
    """What chooses a checkpoint: weighted mean over (corpus, objective) of the loss divided by the trivial predictor's,
    where a ratio above 1 counts as 2 - 1 / ratio: of a nearly constant corpus it may be a thousand and still weighs
    less than 2.

    Objectives without a trivial predictor do not take part, unless none has one: then their weighted mean loss it is.
    """
    used = {key: weight for key, weight in weights.items() if "trivial" in scores.get(key, {})}
    if not used:
        used = {key: weight for key, weight in weights.items() if key in scores}
        return sum(weight * scores[key]["loss"] for key, weight in used.items()) / sum(used.values())
    ratios = [weight * _bounded(scores[key]["loss"], scores[key]["trivial"]) for key, weight in used.items()]
    return sum(ratios) / sum(used.values())


def _bounded(loss: float, trivial: float) -> float:
    ratio = loss / max(trivial, 1e-12)
    return ratio if not ratio > 1 else 2 - 1 / ratio


def _beginning(
    split: Split, capacity: Capacity, samples: int | None, shown: Mapping[str, np.ndarray] | None = None
) -> Iterator[PackedBatch]:
    """Batches until at least `samples` samples were seen. Raises: `MemofastError` naming samples with features that are
    not finite."""
    seen = 0
    room = None if shown is None else rows_shown(split, shown, np.arange(len(split)))
    for batch in epoch(split, capacity, room=room, shown=shown):
        _refuse_not_finite(batch, split)
        yield batch
        seen += batch.samples
        if samples is not None and seen >= samples:
            return


def _refuse_not_finite(batch: PackedBatch, split: Split) -> None:
    for name in FEATURES:
        rows = batch.rows_of(name)
        if rows is not None and not (sound := torch.isfinite(rows).all(1)).all():
            offsets = batch.offsets_of(name)
            bad = torch.searchsorted(offsets, torch.nonzero(~sound)[:, 0], right=True).unique() - 1
            ids = ", ".join(batch.ids[i] for i in bad[:8].tolist())
            raise MemofastError(
                f"corpus {split.corpus.path}: {name} features of {ids} are not finite; prepare these samples again or "
                "leave them out"
            )

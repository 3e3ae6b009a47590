"""Validation: every objective on held-out samples with masks that never change, the model beside its trivial predictor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from memofast import objectives
from memofast.data import Capacity, PackedBatch, Split, epoch
from memofast.errors import MemofastError
from memofast.objectives import Corruption, Objective, Trivial
from memofast.ops.philox import Purpose
from memofast.train.tally import Key, Tally, means

_FITTED = 20_000  # samples of a corpus that its trivial predictors see

Scores = dict[Key, dict[str, float]]  # by (corpus, objective): loss, targets, metrics, trivial


class HeldOut:
    """The held-out part of one corpus.

    Args: split; names: objectives to score; capacity: of a batch; samples: most samples, from the split's beginning (None: all).
    """

    def __init__(self, split: Split, names: tuple[str, ...], capacity: Capacity, samples: int | None):
        self.corpus, self.names = split.corpus.name, names
        self._split, self._capacity, self._samples = split, capacity, samples

    def corrupted(
        self, built: Mapping[str, Objective], seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[PackedBatch, Corruption]]:
        """This rank's batches, masked for one objective at a time; the masks depend on the seed alone."""
        rng = objectives.validation_rng(seed)
        for number, batch in enumerate(_beginning(self._split, self._capacity, self._samples)):
            if number % world == rank:
                for name in self.names:
                    yield batch, objectives.corrupt(batch, built, name, rng, Purpose.VALIDATION_MASK)


def fit_trivial(split: Split, capacity: Capacity, vocabulary: int, widths: Mapping[str, int]) -> Trivial:
    """Trivial predictors of a corpus, fitted on the beginning of its training data.

    Raises: `MemofastError` for word pieces that the model's vocabulary does not have.
    """
    trivial = Trivial(vocabulary, widths)
    for batch in _beginning(split, capacity, _FITTED):
        if (largest := int(batch.token_ids.max())) >= vocabulary:
            raise MemofastError(
                f"corpus {split.corpus.path} has word piece {largest}, but the model's vocabulary ends at {vocabulary - 1}; "
                "set model.vocab_size to that of the tokenizer"
            )
        trivial.fit(batch)
    return trivial


def score_trivial(
    parts: Mapping[str, tuple[HeldOut, Trivial]], built: Mapping[str, Objective], seed: int
) -> dict[Key, float]:
    """Mean loss of the trivial predictors at the same targets the model is scored at. parts: by corpus name."""
    tally = Tally(keys([held_out for held_out, _ in parts.values()]), built, torch.device("cpu"))
    for corpus, (held_out, trivial) in parts.items():
        for batch, corruption in held_out.corrupted(built, seed):
            tally.add(corpus, trivial.evaluate(batch, corruption))
    return {key: values["loss"] for key, values in means(tally.sums()).items()}


def keys(held_out: list[HeldOut]) -> list[Key]:
    return [(part.corpus, name) for part in held_out for name in part.names]


def relative_loss(scores: Scores, weights: Mapping[Key, float]) -> float:
    """What chooses a checkpoint: weighted mean over (corpus, objective) of the loss divided by the trivial predictor's."""
    used = {key: weight for key, weight in weights.items() if key in scores}
    ratios = [weight * scores[key]["loss"] / max(scores[key]["trivial"], 1e-12) for key, weight in used.items()]
    return sum(ratios) / sum(used.values())


def _beginning(split: Split, capacity: Capacity, samples: int | None) -> Iterator[PackedBatch]:
    """Batches until at least `samples` samples were seen. Raises: `MemofastError` naming samples with features that are not finite."""
    seen = 0
    for batch in epoch(split, capacity):
        _refuse_not_finite(batch, split)
        yield batch
        seen += batch.samples
        if samples is not None and seen >= samples:
            return


def _refuse_not_finite(batch: PackedBatch, split: Split) -> None:
    for name, rows in (("visual", batch.visual), ("speech", batch.speech)):
        if rows is not None and not (sound := torch.isfinite(rows).all(1)).all():
            offsets = getattr(batch, f"{name}_offsets")
            bad = torch.searchsorted(offsets, torch.nonzero(~sound)[:, 0], right=True).unique() - 1
            ids = ", ".join(batch.ids[i] for i in bad[:8].tolist())
            raise MemofastError(
                f"corpus {split.corpus.path}: {name} features of {ids} are not finite; prepare these samples again or leave them out"
            )

"""Matching: whether faces and speech belong to the words, or are another sample's. Source: UNITER's image-text
matching, MEmoBERT's itm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Split
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.errors import MemofastError
from memofast.model.heads import Head
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.ratios import Ratio
from memofast.objectives.statistics import Statistics
from memofast.objectives.words import FEWEST_PIECES
from memofast.ops.philox import Purpose, below, sample_words
from memofast.ops.row_lists import threshold


class MatchingOptions(ObjectiveOptions):
    """negatives: share of the samples that show another's rows. replaced: the modalities that are replaced, all of one
    other sample."""

    negatives: Ratio = (1, 2)
    replaced: list[Literal["visual", "speech"]] = Field(["visual", "speech"], min_length=1)

    @field_validator("negatives")
    @classmethod
    def _both(cls, negatives: tuple[int, int]) -> tuple[int, int]:
        if not 0 < negatives[0] < negatives[1]:
            raise ValueError("must be above 0 and below 1, so that there are both kinds")
        return negatives

    @field_validator("replaced")
    @classmethod
    def _each_once(cls, replaced: list[str]) -> list[str]:
        if len(set(replaced)) < len(replaced):
            raise ValueError("names a modality twice")
        return replaced


class Matching(Objective):
    """Two-way cross-entropy from the pooled row; labels of its reads are 1 where a sample shows its own rows.

    The other sample is drawn per epoch, before packing, among all that take part and have these modalities:
    Philox(seed, purpose, epoch, key), word 0 below the threshold for a negative, word 1 the partner.
    """

    Options = MatchingOptions
    metrics = ("accuracy",)
    predictor = "share of matches"
    partners = True

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"matching": Head("pooled", outputs=2)}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text rows", *(f"{modality} rows" for modality in self.options.replaced))

    def eligible(self, facts: Facts) -> np.ndarray:
        complete = [facts.rows(modality) >= 1 for modality in self.options.replaced]
        return (facts.rows("text") >= FEWEST_PIECES) & np.all(complete, axis=0)

    def can_be_of(self, batch: PackedBatch) -> bool:
        return all(batch.rows_of(modality) is not None for modality in self.options.replaced)

    def places(
        self, split: Split, pool: np.ndarray, indices: np.ndarray, seed: int, epoch: int, purpose: Purpose
    ) -> Mapping[str, np.ndarray]:
        pool = pool[self.eligible(split.facts)[pool]]
        if len(pool) < 2:
            raise MemofastError(
                f"objective {self.name}: split {split.name} of corpus {split.corpus.path} has {len(pool)} samples "
                f"with words and {' and '.join(self.options.replaced)} rows, which leaves no other one to show; "
                "leave the objective out for it"
            )
        keys = torch.from_numpy(split.keys[indices])
        words = sample_words(torch.tensor([seed, epoch]), purpose, self.site, keys)
        negative = (words[:, 0] < threshold(self.options.negatives)).numpy()
        at = np.searchsorted(pool, indices)
        inside = (at < len(pool)) & (pool[np.minimum(at, len(pool) - 1)] == indices)
        drawn = below(words[:, 1], torch.from_numpy(len(pool) - inside.astype(np.int64))).numpy()
        other = pool[drawn + (inside & (drawn >= at))]
        owners = np.where(negative, other, indices)
        return dict.fromkeys(self.options.replaced, owners)

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch = first.batch
        name = f"{self.options.replaced[0]}_of"
        if bool(selected.any()) and name not in batch.targets:
            raise MemofastError(f"objective {self.name}: the batch was packed without partners; pack it with `places`")
        samples = selected.nonzero().flatten()
        owner = batch.targets.get(name, batch.sample_keys)
        labels = (owner == batch.sample_keys)[samples].to(torch.int64)
        first.reads[self.name] = Read("matching", batch.offsets[:-1][samples].to(torch.int64), labels)
        return []

    def room(self, capacity: Capacity) -> list[Room]:
        return [Room(capacity, capacity.samples)]

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        (prediction,), read = outputs, views[0].reads[self.name]
        total = read.sum(F.cross_entropy(prediction.float(), read.labels, reduction="none"))
        return LossSum(total, read.count, {"accuracy": read.sum(prediction.detach().argmax(-1) == read.labels)})

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read = views[0].reads[self.name]
        share = torch.tensor(self.options.negatives[0] / self.options.negatives[1]).clamp(1e-6, 1 - 1e-6)
        logs = torch.stack((share, 1 - share)).log().to(read.rows.device)
        return self.loss([logs.expand(read.count, -1)], views)

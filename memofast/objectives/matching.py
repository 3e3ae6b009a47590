"""Matching: whether faces and speech belong to the words, or are another sample's. Source: UNITER's image-text
matching, MEmoBERT's itm, onemodalnegitm and eitm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Split
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.errors import MemofastError
from memofast.model.heads import Head
from memofast.objectives.matching_options import MatchingOptions
from memofast.objectives.objective import LossSum, Objective, Room
from memofast.objectives.partners import Candidates, candidate_words, cosines, most_alike
from memofast.objectives.pooled_rows import pooled_rows
from memofast.objectives.statistics import Statistics
from memofast.objectives.words import FEWEST_PIECES
from memofast.ops.philox import Purpose, sample_words
from memofast.ops.row_lists import threshold


class Matching(Objective):
    """Two-way cross-entropy from the pooled row; labels of its reads are 1 where a sample shows rows that match.

    The other sample is drawn per epoch, before packing, among all that take part and have these modalities:
    Philox(seed, purpose, epoch, key), word 0 below the threshold for a negative, word 1 the partner, word 2 the
    modality that is replaced alone, word 3 the match of the same class.
    """

    Options = MatchingOptions
    metrics = ("accuracy",)
    predictor = "share of matches"
    partners = True

    def __init__(self, name: str, options: MatchingOptions):
        super().__init__(name, options)
        self._pooled: dict[Split, np.ndarray] = {}

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"matching": Head("pooled", outputs=2)}

    @property
    def needs(self) -> tuple[str, ...]:
        known = () if self.options.other_class is None else (f"known {self.options.other_class}",)
        return ("text rows", *(f"{modality} rows" for modality in self.options.replaced), *known)

    def eligible(self, facts: Facts) -> np.ndarray:
        complete = [facts.rows(modality) >= 1 for modality in self.options.replaced]
        able = (facts.rows("text") >= FEWEST_PIECES) & np.all(complete, axis=0)
        return able if self.options.other_class is None else able & (facts.classes_of(self.options.other_class) >= 0)

    def can_be_of(self, batch: PackedBatch) -> bool:
        return all(batch.rows_of(modality) is not None for modality in self.options.replaced)

    def places(
        self, split: Split, pool: np.ndarray, indices: np.ndarray, seed: int, epoch: int, purpose: Purpose
    ) -> Mapping[str, np.ndarray]:
        options, rng = self.options, torch.tensor([seed, epoch])
        near = self._candidates(split, pool[self.eligible(split.facts)[pool]], indices)
        keys = torch.from_numpy(split.keys[indices])
        words = sample_words(rng, purpose, self.site, keys)
        negative = (words[:, 0] < threshold(options.negatives)).numpy()
        alone = (words[:, 2] < threshold(options.faces or (1, 2))).numpy()
        replaced = (
            {"visual": alone, "speech": ~alone} if options.one_modality else dict.fromkeys(options.replaced, True)
        )
        match = indices
        if options.any_of_class:
            drawn = near.inside(words[:, 3])
            match = np.where(negative | (drawn < 0), indices, drawn)
        other = dict.fromkeys(replaced, near.outside(words[:, 1]))
        if options.candidates > 1 and (options.pooled or len(indices)):  # what is wrong with a file is said early
            rows = {modality: self._rows(split, modality) for modality in replaced}
        if options.candidates > 1 and len(indices):
            drawn = near.outside(candidate_words(rng, purpose, self.site, keys, options.candidates))
            alike = {modality: cosines(rows[modality], near.order, indices, drawn) for modality in replaced}
            if not options.one_modality:
                alike = dict.fromkeys(replaced, sum(alike.values()))
            other = {modality: most_alike(split.keys, drawn, alike[modality]) for modality in replaced}
        shown = {modality: np.where(negative & chosen, other[modality], match) for modality, chosen in replaced.items()}
        if options.any_of_class:
            shown["match"] = np.where(negative, next(iter(other.values())), indices)
        return shown

    def _rows(self, split: Split, modality: str) -> np.ndarray:
        """What says which samples of a split are alike [n, width]."""
        if self.options.pooled is None:
            return split.mean_rows(modality)
        if split not in self._pooled:
            self._pooled[split] = pooled_rows(self.options.pooled, split, f"objective {self.name}")
        return self._pooled[split]

    def _candidates(self, split: Split, pool: np.ndarray, indices: np.ndarray) -> Candidates:
        """Raises: `MemofastError` where no other sample could be shown."""
        where = f"objective {self.name}: split {split.name} of corpus {split.corpus.path}"
        if len(pool) < 2:
            raise MemofastError(
                f"{where} has {len(pool)} samples with words and {' and '.join(self.options.replaced)} rows, which "
                "leaves no other one to show; leave the objective out for it"
            )
        if self.options.other_class is None:
            return Candidates.others(pool, indices)
        classes = split.facts.classes_of(self.options.other_class)
        if len(np.unique(classes[pool])) < 2:
            raise MemofastError(
                f"{where} has {len(pool)} samples of one class of {self.options.other_class}, which leaves none of "
                "another class to show; leave the objective out for it"
            )
        return Candidates.by_class(pool, indices, classes)

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch, shown = first.batch, ["match"] if self.options.any_of_class else self.options.replaced
        if bool(selected.any()) and f"{shown[0]}_of" not in batch.targets:
            raise MemofastError(f"objective {self.name}: the batch was packed without partners; pack it with `places`")
        samples = selected.nonzero().flatten()
        owners = [batch.targets.get(f"{name}_of", batch.sample_keys) for name in shown]
        own = torch.stack([keys == batch.sample_keys for keys in owners]).all(0)
        labels = own[samples].to(torch.int64)
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

"""Frame order: rows of a clip change places, and each place tells where its content came from.

Source: HERO's frame order modelling and MEmoBERT's vfom and sfom. Here the position code stays with the place, only the
content moves, and the answer is sought among the clip's own shuffled places. With `original: true`, which is MEmoBERT's
form, the code moves with the content: attention knows no other order, so that this teaches nothing but to read back a
row's own position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.ratios import Ratio
from memofast.objectives.spans import merged_sources
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose, draw, rows_of, stream_key
from memofast.ops.row_lists import capacity as entries
from memofast.ops.row_lists import threshold

FEWEST_ROWS = 2  # that can change places


class OrderOptions(ObjectiveOptions):
    """probability: that a row takes part in the shuffle; of a clip where fewer than two do, two take part. slots: first
    rows of a clip that may. original: as MEmoBERT has it, which teaches nothing: positions move with the content, the
    answer is sought among all slots, and a clip where no row takes part has one that does, and stays.
    """

    probability: Ratio = (3, 20)
    slots: int = Field(64, ge=FEWEST_ROWS, le=2**14)
    original: bool = False


class RowOrder(Objective):
    """Cross-entropy over the shuffled places of a clip. Labels of its reads are the places, within the sample, that
    contents came from."""

    Options = OrderOptions
    metrics = ("accuracy",)
    predictor = "uniform guess"
    modality: ClassVar[str]

    @property
    def _fewest(self) -> int:
        return 1 if self.options.original else FEWEST_ROWS

    @property
    def heads(self) -> Mapping[str, Head]:
        return {f"{self.modality}_order": Head("classes", self.modality, self.options.slots)}

    @property
    def needs(self) -> tuple[str, ...]:
        return (f"{self.modality} rows",)

    def eligible(self, facts: Facts) -> np.ndarray:
        return facts.rows(self.modality) >= self._fewest

    def can_be_of(self, batch: PackedBatch) -> bool:
        return batch.rows_of(self.modality) is not None

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch, offsets = first.batch, first.batch.offsets_of(self.modality)
        rows = int(offsets[-1])
        sample, position = rows_of(offsets, rows)
        words = draw(
            stream_key(rng, purpose, self.site), batch.sample_keys[sample], position, torch.zeros_like(position)
        )
        able = selected[sample] & (position < self.options.slots)
        taken = able & (words[:, 0] < threshold(self.options.probability))
        few = (_counts(sample, taken, batch.samples) < self._fewest)[sample]
        taken |= able & few & (_ranks(sample, words[:, 1], able, taken) < self._fewest)
        places = taken.nonzero().flatten()  # of one sample after the other
        order = torch.argsort((sample[places] << 32) + words[places, 2], stable=True)
        if batch.rows_of(self.modality) is not None:
            source = torch.arange(batch.rows_of(self.modality).shape[0], dtype=torch.int32, device=offsets.device)
            source[places] = places[order].to(torch.int32)
            first.sources[self.modality] = merged_sources(first.sources.get(self.modality), source)
            if self.options.original:
                at = first.positions.get(self.modality, rows_of(offsets, len(source))[1].to(torch.int32)).clone()
                at[places] = position[places[order]].to(torch.int32)
                first.positions[self.modality] = at
        first.reads[self.name] = Read(
            f"{self.modality}_order", batch.joint_rows(self.modality, places), position[places[order]]
        )
        return []

    def room(self, capacity: Capacity) -> list[Room]:
        rows = capacity.of(self.modality)
        share = self.options.probability[0] / self.options.probability[1]
        return [Room(capacity, entries(rows, rows * share + 2 * capacity.samples, rows * share * (1 - share)))]

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        (prediction,), read = outputs, views[0].reads[self.name]
        logits = prediction.float()
        if not self.options.original:
            logits = logits.masked_fill(~self._candidates(views[0], read), float("-inf"))
        total = read.sum(F.cross_entropy(logits, read.labels, reduction="none"))
        return LossSum(total, read.count, {"accuracy": read.sum(logits.detach().argmax(-1) == read.labels)})

    def _candidates(self, view: View, read: Read) -> Tensor:
        """Which places each read may come from: [n, slots] bool, those that were shuffled in its clip."""
        sample = torch.searchsorted(view.batch.offsets[1:].to(torch.int64), read.rows, right=True)
        if read.weights is not None:  # entries without a read are of no sample, though their row may be of one
            sample = torch.where(read.weights > 0, sample, view.batch.samples)
        shuffled = torch.zeros(view.batch.samples + 1, self.options.slots, dtype=torch.bool, device=read.rows.device)
        shuffled.index_put_((sample, read.labels), torch.ones_like(sample, dtype=torch.bool))
        return shuffled[sample]

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read = views[0].reads[self.name]
        return self.loss([torch.zeros(read.count, self.options.slots, device=read.rows.device)], views)


class VisualOrder(RowOrder):
    modality = "visual"


class SpeechOptions(OrderOptions):
    slots: int = Field(128, ge=FEWEST_ROWS, le=2**14)


class SpeechOrder(RowOrder):
    Options = SpeechOptions
    modality = "speech"


def _counts(sample: Tensor, taken: Tensor, samples: int) -> Tensor:
    return torch.zeros(samples, dtype=torch.int64, device=sample.device).index_add_(0, sample, taken.to(torch.int64))


def _ranks(sample: Tensor, words: Tensor, able: Tensor, taken: Tensor) -> Tensor:
    """Place of each row in its sample: those taken first, then those able, by (word, row): [rows] int64."""
    late = 2 - able.to(torch.int64) - taken.to(torch.int64)
    order = torch.argsort((sample << 34) + (late << 32) + words, stable=True)
    begins = torch.searchsorted(sample, sample)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank - begins

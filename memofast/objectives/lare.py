"""LARE: predict hidden word pieces, their parts of speech and polarities, and the polarity of the sentence.

Every piece adds entries of three input tables to its embedding, which the heads are tied to. Source: SentiLARE (Ke et
al., EMNLP 2020) and MEmoBERT's emolare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.class_losses import cross_entropy, predicted
from memofast.objectives.hidden_pieces import NEUTRAL, OTHER, hidden_pieces
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.ratios import Ratio
from memofast.objectives.statistics import Statistics
from memofast.objectives.words import FEWEST_PIECES, WordOptions
from memofast.ops.philox import Purpose, rows_of, stream_key
from memofast.ops.row_lists import capacity as entries
from memofast.ops.row_lists import threshold
from memofast.store.text_writer import PARTS_OF_SPEECH, POLARITIES

_TABLES = {"part_of_speech": "part_of_speech", "polarity": "word_polarity", "sentence": "sentence_polarity"}


class LareOptions(ObjectiveOptions):
    """neutral_probability, sentiment_probability: that a piece without and with polarity is hidden. late_supervision:
    share of sentences whose polarity is asked at [CLS]; the others are told it at every piece. The original's command
    line says 2.0, its help and scripts 0.2. sentence: the target that holds it, of `sentence_classes` at most.

    original: divide the loss by all padded text rows, and where no piece was drawn call the first one, which is hidden
    then, of other part of speech and neutral; else divide by the text rows that there are, and ask for what is true.
    """

    neutral_probability: Ratio = (3, 20)
    sentiment_probability: Ratio = (3, 10)
    late_supervision: Ratio = (1, 5)
    sentence: Literal["label", "emotions"] = "label"
    sentence_classes: int = Field(5, ge=2, le=2**12)
    original: bool = False


class Lare(Objective):
    """The sum of four cross-entropies at hidden pieces and [CLS], over all text rows of the sentences."""

    Options = LareOptions
    parts = tuple(_TABLES)
    metrics = tuple(f"{metric}.{part}" for part in ("words", *parts) for metric in ("accuracy", "targets"))
    predictor = "unigram and class shares"
    of_words = True

    def __init__(self, name: str, options: LareOptions, words: int | None = None, mask_id: int | None = None):
        super().__init__(name, options)
        self.policy = WordOptions(policy="token").token_policy(words, mask_id)

    @property
    def tables(self) -> Mapping[str, int]:
        sizes = (len(PARTS_OF_SPEECH), len(POLARITIES), self.options.sentence_classes + 1)
        return dict(zip(_TABLES.values(), sizes, strict=True))

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"words": Head("words")} | {name: Head("table", outputs=size) for name, size in self.tables.items()}

    @property
    def classes(self) -> Mapping[str, tuple[str, int]]:
        return {self.options.sentence: ("sentence_classes", self.options.sentence_classes)}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text rows", "part_of_speech", "polarity", self.options.sentence)

    def eligible(self, facts: Facts) -> np.ndarray:
        return (facts.rows("text") >= FEWEST_PIECES) & (facts.targets >= set(self.needs[1:]))

    def can_be_of(self, batch: PackedBatch) -> bool:
        return batch.targets.keys() >= set(self.needs[1:])

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch, options = first.batch, self.options
        if not self.can_be_of(batch):
            return []  # then no sample is selected
        tokens = batch.token_ids if first.token_ids is None else first.token_ids
        sentence, unknown = self._sentences(batch), options.sentence_classes
        drawn = hidden_pieces(batch, tokens, self.policy, (options.neutral_probability, options.sentiment_probability),
                              selected, stream_key(rng, purpose, self.site))  # fmt: skip
        first.token_ids = drawn.token_ids
        sample, position = rows_of(batch.text_offsets, tokens.numel())
        asked = drawn.sentences < threshold(options.late_supervision)
        told = torch.where(asked | (sentence < 0), unknown, sentence)[sample].where(batch.word_ids >= 0, unknown)
        for name, given in zip(_TABLES.values(), (drawn.part_of_speech, drawn.polarity, told), strict=True):
            before = first.tables.get(name, torch.full_like(tokens, -1))
            first.tables[name] = given.where(selected[sample], before).to(torch.int32)

        def read(head: str, where: Tensor, labels: Tensor) -> Read:
            rows = where.nonzero().flatten()
            return Read(head, batch.joint_rows("text", rows), labels[rows].to(torch.int64))

        speech, polarity = batch.targets["part_of_speech"], batch.targets["polarity"]
        meant = drawn.hidden & ((speech != OTHER) | (polarity != NEUTRAL))
        if options.original:
            speech, polarity = speech.where(~drawn.forced, OTHER), polarity.where(~drawn.forced, NEUTRAL)
            meant |= drawn.forced
        begins = (position == 0) & (selected & asked & (sentence >= 0))[sample]
        own, lengths = read("words", drawn.hidden, tokens), batch.text_offsets.diff()[selected]
        own.targets = int(len(lengths) * lengths.max() if options.original and len(lengths) else lengths.sum())
        first.reads |= {
            self.name: own,
            f"{self.name}.part_of_speech": read("part_of_speech", meant, speech),
            f"{self.name}.polarity": read("word_polarity", meant, polarity),
            f"{self.name}.sentence": read("sentence_polarity", begins, sentence[sample]),
        }
        return []

    def _sentences(self, batch: PackedBatch) -> Tensor:
        """Class of each sentence [B] int64, -1 where unknown."""
        target = batch.targets[self.options.sentence]
        return target if self.options.sentence == "label" else target.argmax(1).where(target.sum(1) > 0, -1)

    def room(self, capacity: Capacity) -> list[Room]:
        share = max(n / d for n, d in (self.options.neutral_probability, self.options.sentiment_probability))
        rows = capacity.text
        reads = entries(rows, rows * share + capacity.samples, rows * share * (1 - share))
        return [Room(capacity, reads, {"part_of_speech": reads, "polarity": reads, "sentence": capacity.samples})]

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        reads, metrics, total = views[0].reads, {}, 0.0
        for part, key, output in zip(("words", *self.parts), self._keys, outputs, strict=True):
            own, metrics[f"accuracy.{part}"], metrics[f"targets.{part}"] = cross_entropy(output, reads[key])
            total = total + own
        return LossSum(total, reads[self.name].targets, metrics)

    @property
    def _keys(self) -> tuple[str, ...]:
        return (self.name, *(f"{self.name}.{part}" for part in self.parts))

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        targets = ("part_of_speech", "polarity", self.options.sentence)
        shares = [statistics.class_logs(name, size) for name, size in zip(targets, self.tables.values(), strict=True)]
        return self.loss(predicted(views[0], self._keys, (statistics.word_logs(), *shares)), views)

"""Prompts as a second sentence, which names a class: is it the sample's?

Source: MEmoBERT's promptnsp, which has a sample of each class's sentence, and finds the label by the likeliest match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor

from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.class_losses import cross_entropy
from memofast.objectives.naming import Naming, Vocabulary
from memofast.objectives.objective import LossSum
from memofast.objectives.prompted import Prompted, PromptOptions
from memofast.objectives.ratios import Ratio
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose, below, sample_words
from memofast.ops.row_lists import threshold


class SentencePromptOptions(PromptOptions):
    """As of `label_prompt`. negatives: share of the samples whose sentence names another class, each as likely; None:
    that which makes every class as likely, as in the original."""

    position: Literal["before", "after"] = "after"
    negatives: Ratio | None = None

    @field_validator("negatives")
    @classmethod
    def _both(cls, negatives: tuple[int, int] | None) -> tuple[int, int] | None:
        if negatives is not None and not 0 < negatives[0] < negatives[1]:
            raise ValueError("must be above 0 and below 1, so that there are both kinds")
        return negatives


class SentencePrompt(Prompted):
    """Two-way cross-entropy from the pooled row; labels of its reads are 1 where the second sentence names the class.

    Philox(seed, update, purpose, key): word 0 below the threshold for another class, word 1 names it.
    """

    Options = SentencePromptOptions
    metrics = ("accuracy",)
    predictor = "share of matches"
    apart = True

    def __init__(self, name: str, options: SentencePromptOptions, model: Vocabulary | None, naming: Naming):
        super().__init__(name, options, model, naming)
        self.negatives = options.negatives or (len(self.words) - 1, len(self.words))

    @property
    def heads(self) -> dict[str, Head]:
        return {"matching": Head("pooled", outputs=2)}

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch = first.batch
        rows, samples, own = self.masked(batch, selected)
        drawn = sample_words(rng.cpu(), purpose, self.site, batch.sample_keys[samples].cpu()).to(rows.device)
        other = below(drawn[:, 1], len(self.words) - 1)
        named = torch.where(drawn[:, 0] < threshold(self.negatives), other + (other >= own), own)
        first.token_ids = (batch.token_ids if first.token_ids is None else first.token_ids).clone()
        first.token_ids[rows] = first.token_ids.new_tensor(self.words)[named]
        first.reads[self.name] = Read("matching", batch.offsets[:-1][samples].to(torch.int64), (named == own).long())
        return []

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        read = views[0].reads[self.name]
        total, right, _ = cross_entropy(outputs[0], read)
        return LossSum(total, read.count, {"accuracy": right})

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read, share = views[0].reads[self.name], torch.tensor(self.negatives[0] / self.negatives[1])
        logs = torch.stack((share, 1 - share)).log().to(read.rows.device)
        return self.loss([logs.expand(read.count, -1)], views)

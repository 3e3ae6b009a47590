"""Masked words: predict the word pieces that were hidden, and the lexicon classes of those that have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from memofast import ops
from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.class_losses import cross_entropy, predicted
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.ratios import Ratio
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose

FEWEST_PIECES = 3  # [CLS], one piece, [SEP]


class WordOptions(ObjectiveOptions):
    """Fields of `ops.TokenPolicy`; policy: its kind. emotion_rate: weight of the cross-entropy over the lexicon's
    classes, emotion_classes of them, that each hidden piece with a class adds; 0: none. mask_id, random_low,
    random_high: None: from the vocabulary, of which BERT's has its ordinary words from 999 on, a smaller one after its
    mask token."""

    policy: Literal["whole_word", "token", "emotion_word", "whole_word_emotion"] = "whole_word"
    probability: Ratio = (3, 20)
    emotion_probability: Ratio = (1, 2)
    emotion_rate: float = Field(0, ge=0, le=1000)
    emotion_classes: int = Field(6, ge=2, le=2**12)
    at_least_one: bool | None = None
    mask_id: int | None = Field(None, ge=0, lt=2**20)
    random_low: int | None = Field(None, ge=0, lt=2**20)
    random_high: int | None = Field(None, ge=1, le=2**20)

    @model_validator(mode="after")
    def _something_hidden(self) -> WordOptions:
        if not (self.probability[0] or (self.emotion_probability[0] and "emotion" in self.policy) or self.at_least_one):
            raise ValueError("probability 0 hides no word; leave the objective out")
        if self.emotion_probability != (1, 2) and "emotion" not in self.policy:
            raise ValueError(f"emotion_probability has no effect with policy {self.policy}; leave it out")
        if self.emotion_classes != 6 and not self.emotion_rate:
            raise ValueError("emotion_classes has no effect without emotion_rate; leave it out")
        if self.policy == "whole_word_emotion" and (self.random_low, self.random_high) != (None, None):
            raise ValueError("random_low and random_high have no effect with policy whole_word_emotion; leave them out")
        return self

    def token_policy(self, words: int | None, mask_id: int | None) -> ops.TokenPolicy:
        """Args: words, mask_id: of the model's vocabulary; None: BERT's."""
        found = {}
        if words is not None:
            low = 999 if words > 1998 else mask_id + 1
            found = {"mask_id": mask_id, "random_low": low, "random_high": words}
        given = self.model_dump(exclude={"policy", "shows", "emotion_rate", "emotion_classes"}, exclude_none=True)
        for name, beyond in (("mask_id", words), ("random_low", words), ("random_high", words and words + 1)):
            if beyond is not None and given.get(name, 0) >= beyond:
                raise ValueError(
                    f"{name} {given[name]} is beyond the vocabulary of {words} words; choose a smaller one"
                )
        return ops.TokenPolicy(kind=self.policy, **{**found, **given})


class MaskedWords(Objective):
    """Cross-entropy over the vocabulary at masked word pieces, and with `emotion_rate` times that over the lexicon's
    classes. Source: MEmoBERT's mlm_wwm, mlm, melm, melm_wwm and multi-task."""

    Options = WordOptions
    metrics = ("accuracy",)
    predictor = "unigram"
    of_words = True

    def __init__(self, name: str, options: WordOptions, words: int | None = None, mask_id: int | None = None):
        super().__init__(name, options)
        self.policy = options.token_policy(words, mask_id)
        self.needs_lexicon = self.policy.needs_emotion or options.emotion_rate > 0
        if options.emotion_rate:
            self.parts = ("emotions",)
            self.metrics = ("accuracy", "accuracy.emotions", "targets.emotions")

    @property
    def heads(self) -> Mapping[str, Head]:
        own = {"emotion_words": Head("classes", outputs=self.options.emotion_classes)} if self.parts else {}
        return {"words": Head("words"), **own}

    @property
    def classes(self) -> Mapping[str, tuple[str, int]]:
        return {"lexicon": ("emotion_classes", self.options.emotion_classes)} if self.parts else {}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text rows", "lexicon") if self.needs_lexicon else ("text rows",)

    def eligible(self, facts: Facts) -> np.ndarray:
        enough = facts.rows("text") >= FEWEST_PIECES
        return enough & (not self.needs_lexicon or "lexicon" in facts.targets)

    def can_be_of(self, batch: PackedBatch) -> bool:
        return not self.needs_lexicon or "lexicon" in batch.targets

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch = first.batch
        masked = ops.token_mask(
            batch.token_ids if first.token_ids is None else first.token_ids,
            batch.word_ids,
            batch.text_offsets,
            batch.sample_keys,
            rng,
            self.policy,
            site=self.site,
            purpose=purpose,
            emotion=batch.targets.get("lexicon"),
            selected=selected,
            capacity=None if batch.token_ids.is_cpu else batch.token_ids.numel(),
        )
        first.token_ids = masked.token_ids
        rows = masked.indices[: int(masked.count)]
        labels = masked.labels[rows.to(torch.int64)].to(torch.int64)
        first.reads[self.name] = Read("words", batch.joint_rows("text", rows), labels)
        if self.parts:
            classes = batch.targets["lexicon"][rows.to(torch.int64)].to(torch.int64)
            read = Read("emotion_words", batch.joint_rows("text", rows[classes >= 0]), classes[classes >= 0])
            first.reads[f"{self.name}.emotions"] = read
        return []

    def room(self, capacity: Capacity) -> list[Room]:
        most = self.policy.capacity(capacity.text, capacity.samples)
        return [Room(capacity, most, dict.fromkeys(self.parts, most))]

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        reads, metrics = views[0].reads, {}
        total, metrics["accuracy"], _ = cross_entropy(outputs[0], reads[self.name])
        if self.parts:
            further, *told = cross_entropy(outputs[1], reads[f"{self.name}.emotions"])
            metrics["accuracy.emotions"], metrics["targets.emotions"] = told
            total = total + self.options.emotion_rate * further
        return LossSum(total, reads[self.name].targets, metrics)

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        logs = {self.name: statistics.word_logs()}
        if self.parts:
            logs[f"{self.name}.emotions"] = statistics.class_logs("lexicon", self.options.emotion_classes)
        return self.loss(predicted(views[0], logs, logs.values()), views)

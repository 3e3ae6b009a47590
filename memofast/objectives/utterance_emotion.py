"""The emotion of the utterance, from its pooled row: pseudo labels that a text model gave, or the corpus's own label.

Source: MEmoBERT's emocls and its high-quality clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.errors import MemofastError
from memofast.model.heads import Head
from memofast.objectives.class_losses import recall_names, recalls
from memofast.objectives.face_emotions import divergence
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose

Probability = Annotated[float, Field(ge=0, le=1)]
_NEUTRAL = "neutral"  # the class that has a bound of its own
_SMALLEST = 1e-6  # share of a class that no training sample has, in the trivial predictor


class UtteranceEmotionOptions(ObjectiveOptions):
    """targets: `soft`, `hard`, `logits`: of the corpus's `emotions`, which are pseudo labels: as they are, the
    likeliest one, or as logits: stores keep probabilities, whose logarithms are the text model's logits but for a
    constant that no softmax sees. `label`: the corpus's own label.
    temperature: of `logits`, for them and the scores; None: 2. at_least: least probability of the likeliest emotion of
    a sample that is served; neutral_at_least: where that is neutral; None: at_least. MEmoBERT's high-quality clips have
    0.4 and 0.8.
    """

    targets: Literal["soft", "hard", "logits", "label"] = "soft"
    temperature: float | None = Field(None, gt=0, le=1000)
    at_least: Probability = 0.0
    neutral_at_least: Probability | None = None

    @model_validator(mode="after")
    def _all_takes_effect(self) -> UtteranceEmotionOptions:
        if self.temperature is not None and self.targets != "logits":
            raise ValueError(f"temperature has no effect with targets {self.targets}; leave it out")
        if self.targets == "label" and (self.at_least or self.neutral_at_least is not None):
            raise ValueError("at_least and neutral_at_least have no effect with targets label; leave them out")
        return self


class UtteranceEmotion(Objective):
    """`soft` and `logits`: KL(target || prediction) divided by the number of classes, as MEmoBERT's mean over elements;
    `hard` and `label`: cross-entropy. Labels of its reads are the samples.

    Args: classes: names by target (`emotions`, `label`), of the corpora that it is of; None: not known, and it has no
    heads.
    """

    Options = UtteranceEmotionOptions
    predictor = "mean label"

    def __init__(self, name: str, options: UtteranceEmotionOptions, classes: Mapping[str, Sequence[str]] | None = None):
        super().__init__(name, options)
        self.column = "label" if options.targets == "label" else "emotions"
        self.temperature = (options.temperature or 2.0) if options.targets == "logits" else 1.0
        self.emotions = tuple((classes or {}).get(self.column, ()))
        self.metrics = ("accuracy", *recall_names(self.emotions))
        if options.neutral_at_least is not None and self.emotions and _NEUTRAL not in self.emotions:
            raise ValueError(f"neutral_at_least: the corpora have no emotion {_NEUTRAL}; leave it out")

    @property
    def heads(self) -> Mapping[str, Head]:
        if not self.emotions:
            raise MemofastError(
                f"objectives.{self.name}: no corpus has {self.needs[0]}; "
                + ("prepare one with its labels" if self.column == "label" else "run memofast pseudo-label on one")
            )
        return {f"utterance_{self.column}": Head("pooled_classes", outputs=len(self.emotions))}

    @property
    def needs(self) -> tuple[str, ...]:
        least = (self.options.at_least, self.options.neutral_at_least)
        bounds = sorted({f"{bound:g}" for bound in least if bound})
        return (self.column, *([f"a largest one of {' or '.join(bounds)}"] if bounds else []))

    def eligible(self, facts: Facts) -> np.ndarray:
        """Samples whose emotion is known, and sure enough, of which there is more than [CLS]."""
        known = (facts.classes_of(self.column) >= 0) & (self.rows_shown(facts).sum(1) > 1)
        if self.column == "label" or not known.any():
            return known
        return known & self._sure(torch.from_numpy(facts.target(self.column))).numpy()

    def _sure(self, emotions: Tensor) -> Tensor:
        """Which of these probabilities [n, classes] have a largest one that reaches its bound: [n] bool."""
        probability, likeliest = emotions.max(-1)
        bound = torch.full_like(probability, self.options.at_least)
        if self.options.neutral_at_least is not None and _NEUTRAL in self.emotions:
            bound[likeliest == self.emotions.index(_NEUTRAL)] = self.options.neutral_at_least
        return (probability >= bound) & (probability > 0)

    def can_be_of(self, batch: PackedBatch) -> bool:
        return self.column in batch.targets

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        samples = selected.nonzero().flatten()
        rows = first.batch.offsets[:-1][samples].to(torch.int64)
        first.reads[self.name] = Read(next(iter(self.heads)), rows, samples)
        return []

    def room(self, capacity: Capacity) -> list[Room]:
        return [Room(capacity, capacity.samples)]

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        (prediction,), read = outputs, views[0].reads[self.name]
        given = views[0].batch.targets[self.column][read.labels]
        logs, wanted = (prediction.float() / self.temperature).log_softmax(-1), self._wanted(given)
        if self.options.targets in ("soft", "logits"):
            losses = divergence(wanted, logs).sum(-1) / len(self.emotions)
        else:
            losses = -(wanted * logs).sum(-1)
        true = wanted.argmax(-1)
        agrees = prediction.detach().argmax(-1) == true
        found = {"accuracy": read.sum(agrees), **recalls(agrees, true, read, self.emotions)}
        return LossSum(read.sum(losses), read.count, found)

    def _wanted(self, given: Tensor) -> Tensor:
        """Probabilities [n, classes] fp32 from a target of samples."""
        if self.column == "label" or self.options.targets == "hard":
            classes = given if self.column == "label" else given.argmax(-1)
            return F.one_hot(classes.clamp(min=0), len(self.emotions)).float()
        softened = given.float() ** (1 / self.temperature)  # softmax(log p / T)
        return softened / softened.sum(-1, keepdim=True).clamp(min=1e-12)

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        """The best of all that say the same of every sample, by the training samples that it can serve."""
        read, given = views[0].reads[self.name], statistics.target(self.column)
        if given is not None:
            given = given[given >= 0 if self.column == "label" else self._sure(given)]
        count = torch.zeros(len(self.emotions)) if given is None else self._wanted(given).sum(0)
        logs = count.clamp(min=_SMALLEST).log() * self.temperature
        return self.loss([logs.to(read.rows.device).expand(read.count, -1)], views)

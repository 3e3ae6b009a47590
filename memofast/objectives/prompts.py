"""Prompts whose masked word names the label. Source: MEmoBERT's promptmask, cmpromptmask, flexpromptmask and
flexpromptmissmask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.class_losses import recall_names, recalls
from memofast.objectives.naming import Naming, Vocabulary
from memofast.objectives.objective import LossSum
from memofast.objectives.prompted import Prompted, PromptOptions, classes_of_samples
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose

_SMALLEST = 1e-6  # of a class that no training sample has, in the trivial predictor


class LabelPromptOptions(PromptOptions):
    """restricted: the word is sought among the classes' words, and not in the whole vocabulary."""

    restricted: bool = False


class LabelPrompt(Prompted):
    """Cross-entropy of the label's word at [MASK], over the vocabulary or the classes' words. Labels of its reads count
    the classes that have words."""

    Options = LabelPromptOptions
    predictor = "shares of labels"

    def __init__(self, name: str, options: LabelPromptOptions, model: Vocabulary | None, naming: Naming):
        super().__init__(name, options, model, naming)
        self.classes_named = [naming.classes[number] for number in self.named]
        self.metrics = ("accuracy", *recall_names(self.classes_named))

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"words": Head("words")}

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        rows, _, classes = self.masked(first.batch, selected)
        first.reads[self.name] = Read("words", first.batch.joint_rows("text", rows.to(torch.int32)), classes)
        return []

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        prediction, read = outputs[0].float(), views[0].reads[self.name]
        named = torch.stack([prediction[:, word] for word in self.words], 1)
        return self._loss(named, named if self.options.restricted else prediction, read)

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read, given = views[0].reads[self.name], statistics.target(self.options.labels)
        classes = torch.zeros(0, dtype=torch.int64) if given is None else classes_of_samples(given)
        counts = torch.bincount(classes[classes >= 0])
        counts = F.pad(counts, (0, max(0, self.named[-1] + 1 - len(counts))))[self.named].float()
        logs = counts.clamp(min=_SMALLEST).log().log_softmax(-1)
        logs = logs.to(read.rows.device).expand(read.count, -1)
        return self._loss(logs, logs, read)

    def _loss(self, named: Tensor, among: Tensor, read: Read) -> LossSum:
        """Of scores of the classes [n, classes] among all that compete with them [n, ...]."""
        if not len(named):
            return LossSum(named.sum(), 0, dict.fromkeys(self.metrics, named.sum()))
        chosen = named.gather(1, read.labels[:, None])[:, 0]
        right = chosen.detach() >= among.detach().amax(-1)
        found = {"accuracy": read.sum(right), **recalls(right, read.labels, read, self.classes_named)}
        return LossSum(read.sum(among.logsumexp(-1) - chosen), read.count, found)

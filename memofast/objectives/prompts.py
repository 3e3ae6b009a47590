"""Prompts: the word at [MASK] of a template in the text names the label. Source: MEmoBERT's promptmask, cmpromptmask,
flexpromptmask and flexpromptmissmask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch, rounded_length
from memofast.data.facts import Facts
from memofast.data.prompt import BERT, MASK_PIECE, TEXTS, Marks, Prompt
from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.objectives.naming import BertSizes, Naming, Vocabulary
from memofast.objectives.objective import LossSum, Objective, ObjectiveOptions, Room
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose

_SMALLEST = 1e-6  # of a class that no training sample has, in the trivial predictor
Piece = Annotated[int, Field(ge=0, lt=2**20)]


class PromptOptions(ObjectiveOptions):
    """template: a name of `memofast.data.prompt.TEXTS`, a text with [MASK], or word pieces. position: before the
    sentence or after it. prefix: letters l, v, s for what a sample shows, before the template. words: for each class a
    word, or a word piece, or null to leave its samples out; none: the class's own name. restricted: the word is sought
    among the classes' words, and not in the whole vocabulary."""

    template: str | Annotated[list[Piece], Field(min_length=1, max_length=512)] = "iam"
    position: Literal["before", "after"] = "before"
    prefix: bool = False
    words: dict[str, str | Piece | None] = Field({})
    restricted: bool = False


class LabelPrompt(Objective):
    """Cross-entropy of the label's word at [MASK], over the vocabulary or the classes' words. Labels of its reads count
    the classes that have words."""

    Options = PromptOptions
    metrics = ("accuracy",)
    predictor = "shares of labels"

    def __init__(self, name: str, options: PromptOptions, model: Vocabulary | None, naming: Naming):
        super().__init__(name, options)
        model = model or BertSizes
        size, template = model.vocab_size, options.template
        words = naming.words(options.words, size)
        if isinstance(template, str):
            template = naming.pieces(TEXTS.get(template, template), size)
        if template.count(model.mask_token_id) != 1:
            raise ValueError(f"template: holds {template.count(model.mask_token_id)} [MASK]; write one")
        marks = _marks(options, model, naming)
        self.prompt = Prompt(tuple(template), options.position, options.prefix, marks)
        self.named, self.words = [*words], [*words.values()]
        if beyond := [piece for piece in (*template, *self.words) if piece >= size]:
            raise ValueError(f"word piece {beyond[0]} is beyond the vocabulary of {size} words; choose another one")
        self._most = model.max_position_embeddings - self.prompt.longest
        if self._most < 1:
            raise ValueError("template: is longer than the texts that the model reads; choose a shorter one")

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"words": Head("words")}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("label",)

    def eligible(self, facts: Facts) -> np.ndarray:
        """Samples of a class that has a word, whose text has room for the prompt."""
        fits = self.rows_shown(facts)[:, 0] <= self._most
        return fits & np.isin(facts.classes_of("label"), self.named)

    def can_be_of(self, batch: PackedBatch) -> bool:
        return "label" in batch.targets

    def rewritten(self, batch: PackedBatch, selected: Tensor) -> PackedBatch:
        return self.prompt.applied(batch, selected)[0] if bool(selected.any()) else batch

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch = first.batch
        rows = torch.nonzero(batch.token_ids == self.prompt.marks.mask).flatten()
        sample = torch.searchsorted(batch.text_offsets[1:].to(torch.int64), rows, right=True)
        rows, sample = rows[selected[sample]], sample[selected[sample]]
        edge = torch.ones_like(rows, dtype=torch.bool)  # of a text that has [MASK] itself the prompt's is at its end
        (edge[1:] if self.options.position == "before" else edge[:-1]).copy_(sample[1:] != sample[:-1])
        rows, sample = rows[edge], sample[edge]
        label = batch.targets["label"][sample] if len(sample) else sample
        known = torch.tensor(self.named, device=rows.device)
        first.reads[self.name] = Read(
            "words", batch.joint_rows("text", rows.to(torch.int32)), torch.searchsorted(known, label)
        )
        return []

    def room(self, capacity: Capacity) -> list[Room]:
        added = self.prompt.longest
        text, longest = capacity.text + added * capacity.samples, rounded_length(capacity.longest + added)
        return [Room(replace(capacity, text=text, longest=capacity.longest and longest), capacity.samples)]

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View]) -> LossSum:
        prediction, read = outputs[0].float(), views[0].reads[self.name]
        named = torch.stack([prediction[:, word] for word in self.words], 1)
        return _loss(named, named if self.options.restricted else prediction, read)

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        read, given = views[0].reads[self.name], statistics.target("label")
        counts = torch.zeros(self.named[-1] + 1) if given is None else torch.bincount(given[given >= 0])
        counts = F.pad(counts, (0, max(0, self.named[-1] + 1 - len(counts))))[self.named].float()
        logs = counts.clamp(min=_SMALLEST).log().log_softmax(-1)
        logs = logs.to(read.rows.device).expand(read.count, -1)
        return _loss(logs, logs, read)


def _loss(named: Tensor, among: Tensor, read: Read) -> LossSum:
    """Of scores of the classes [n, classes] among all that compete with them [n, ...]."""
    if not len(named):
        return LossSum(named.sum(), 0, {"accuracy": named.sum()})
    chosen = named.gather(1, read.labels[:, None])[:, 0]
    total = read.sum(among.logsumexp(-1) - chosen)
    return LossSum(total, read.count, {"accuracy": read.sum(chosen.detach() >= among.detach().amax(-1))})


def _marks(options: PromptOptions, model: Vocabulary, naming: Naming) -> Marks:
    """Raises: `ValueError` where what a prompt writes beside its template is no word piece of the model."""
    after = options.position == "after" and (options.shows is None or "text" in options.shows)
    needed = {"separator": True, "full_stop": after, "letters": options.prefix, "colon": options.prefix}
    known = naming.vocabulary(model.vocab_size)
    if not known and model.mask_token_id == BERT[MASK_PIECE]:  # of a part of BERT's vocabulary
        known = {piece: number for piece, number in BERT.items() if number < model.vocab_size}
    return replace(Marks.of(known, needed), mask=model.mask_token_id)

"""A prompt in the text: a template with a place for the word of a class. What is asked of it, others say.

Source: MEmoBERT's promptmask, cmpromptmask, flexpromptmask, flexpromptmissmask and promptnsp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from memofast.data.batch import Capacity, PackedBatch, rounded_length
from memofast.data.facts import Facts
from memofast.data.prompt import BERT, MASK_PIECE, TEXTS, Marks, Prompt
from memofast.objectives.naming import BertSizes, Naming, Vocabulary
from memofast.objectives.objective import Objective, ObjectiveOptions, Room
from memofast.ops.philox import Purpose

Piece = Annotated[int, Field(ge=0, lt=2**20)]


class PromptOptions(ObjectiveOptions):
    """template: a name of `memofast.data.prompt.TEXTS`, a text with [MASK], or word pieces. position: before the
    sentence or after it. prefix: letters l, v, s for what a sample shows, before the template. labels: the corpus's own
    `label`, or the likeliest pseudo label (`emotions`). words: for each class a word, or a word piece, or null to leave
    its samples out; none: the class's own name."""

    template: str | Annotated[list[Piece], Field(min_length=1, max_length=512)] = "iam"
    position: Literal["before", "after"] = "before"
    prefix: bool = False
    labels: Literal["label", "emotions"] = "label"
    words: dict[str, str | Piece | None] = Field({})


class Prompted(Objective):
    """Shows a prompt in the text of each of its samples, with [MASK] where the word of a class belongs.

    Class attribute: apart: whether [SEP] keeps it apart from the sentence.
    """

    apart: ClassVar[bool] = False

    def __init__(self, name: str, options: PromptOptions, model: Vocabulary | None, naming: Naming):
        super().__init__(name, options)
        model = model or BertSizes
        size, template = model.vocab_size, options.template
        if options.labels == "emotions" and not naming.classes:
            raise ValueError("labels: no corpus has emotions; run memofast pseudo-label on one, or leave it out")
        words = naming.words(options.words, size)
        if isinstance(template, str):
            template = naming.pieces(TEXTS.get(template, template), size)
        if template.count(model.mask_token_id) != 1:
            raise ValueError(f"template: holds {template.count(model.mask_token_id)} [MASK]; write one")
        marks = _marks(options, model, naming)
        self.prompt = Prompt(tuple(template), options.position, options.prefix, marks, self.apart)
        self.named, self.words = [*words], [*words.values()]
        if beyond := [piece for piece in (*template, *self.words) if piece >= size]:
            raise ValueError(f"word piece {beyond[0]} is beyond the vocabulary of {size} words; choose another one")
        self._most = model.max_position_embeddings - self.prompt.longest
        if self._most < 1:
            raise ValueError("template: is longer than the texts that the model reads; choose a shorter one")

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.options.labels,)

    def eligible(self, facts: Facts) -> np.ndarray:
        """Samples of a class that has a word, whose text has room for the prompt."""
        fits = self.rows_shown(facts)[:, 0] <= self._most
        return fits & np.isin(facts.classes_of(self.options.labels), self.named)

    def can_be_of(self, batch: PackedBatch) -> bool:
        return self.options.labels in batch.targets

    def rewritten(self, batch: PackedBatch, selected: Tensor, rng: Tensor, purpose: Purpose) -> PackedBatch:
        return self.prompt.applied(batch, selected)[0] if bool(selected.any()) else batch

    def masked(self, batch: PackedBatch, selected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the selected samples [B] bool the text row [n] int64 of each prompt's [MASK], the sample, and its class,
        counted among those that have words."""
        rows = torch.nonzero(batch.token_ids == self.prompt.marks.mask).flatten()
        sample = torch.searchsorted(batch.text_offsets[1:].to(torch.int64), rows, right=True)
        rows, sample = rows[selected[sample]], sample[selected[sample]]
        edge = torch.ones_like(rows, dtype=torch.bool)  # of a text that has [MASK] itself the prompt's is at its end
        (edge[1:] if self.options.position == "before" else edge[:-1]).copy_(sample[1:] != sample[:-1])
        rows, sample = rows[edge], sample[edge]
        given = batch.targets[self.options.labels][sample] if len(sample) else sample
        known = torch.tensor(self.named, device=rows.device)
        return rows, sample, torch.searchsorted(known, classes_of_samples(given))

    def room(self, capacity: Capacity) -> list[Room]:
        added = self.prompt.longest
        text, longest = capacity.text + added * capacity.samples, rounded_length(capacity.longest + added)
        return [Room(replace(capacity, text=text, longest=capacity.longest and longest), capacity.samples)]


def classes_of_samples(given: Tensor) -> Tensor:
    """Classes [n] int64 of samples, of `emotions` [n, classes] the likeliest one; -1 where it is not known."""
    return given if given.dim() == 1 else torch.where(given.amax(1) > 0, given.argmax(1), -1)


def _marks(options: PromptOptions, model: Vocabulary, naming: Naming) -> Marks:
    """Raises: `ValueError` where what a prompt writes beside its template is no word piece of the model."""
    after = options.position == "after" and (options.shows is None or "text" in options.shows)
    needed = {"separator": True, "full_stop": after, "letters": options.prefix, "colon": options.prefix}
    known = naming.vocabulary(model.vocab_size)
    if not known and model.mask_token_id == BERT[MASK_PIECE]:  # of a part of BERT's vocabulary
        known = {piece: number for piece, number in BERT.items() if number < model.vocab_size}
    return replace(Marks.of(known, needed), mask=model.mask_token_id)

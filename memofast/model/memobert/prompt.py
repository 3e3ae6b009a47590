"""Prompts: a template with [MASK] beside the sentence, whose masked word names the emotion.

Source: MEmoBERT's prompt tasks (promptmask, flexpromptmask, flexpromptmissmask and their cross-modal forms). Word
pieces are those of bert-base-uncased.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from memofast.data.batch import OF_TOKENS, PackedBatch
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.encoder import ReadRows
from memofast.model.memobert.heads import WordHead
from memofast.model.memobert.original import describe
from memofast.model.memobert.pre_training import MemoBertForPreTraining, MemoBertModel, MemoBertPreTrainedModel, is_bert

if TYPE_CHECKING:
    from typing import Self

MASK, SEP, COLON, FULL_STOP = 103, 102, 1024, 1012
_ENDS = (FULL_STOP, 1029, 999)  # . ? !
_LETTERS = (1048, 1058, 1055)  # l v s, for what a sample has
OTHER = "another word"  # what a whole-vocabulary prediction is that names no class

TEMPLATES = {
    "iam": (1045, 2572, MASK, FULL_STOP),
    "itwas": (2009, 2001, MASK, FULL_STOP),
    "heis": (2002, 2003, MASK, FULL_STOP),
    "ifeel": (1045, 2514, MASK, 2083),
    "svtifeel": (1056, 1058, 1055, COLON, 1045, 2514, MASK, 2083),
    # soft prompts: BERT's unused tokens, trained like any other
    "softprompt3": (2, 3, 4, MASK, 5, 6, 7),
    "softprompt5": (2, 3, 4, 5, 6, MASK, 7, 8, 9, 10, 11),
    "halfsoftprompt3": (2, 3, 4, MASK),
    "halfsoftprompt3iam": (2, 3, 4, 1045, 2572, MASK),
    "halfsoftprompt5iam": (2, 3, 4, 5, 6, 1045, 2572, MASK),
}
WORDS = {
    "anger": 4963, "angry": 4854, "happy": 3407, "happiness": 8404, "joy": 6569, "neutral": 8699, "sad": 6517,
    "sadness": 12039, "surprise": 4474, "surprised": 4527, "fear": 3571, "fearful": 19725, "disgust": 12721,
    "calm": 5475, "boredom": 29556, "excited": 7568, "frustrated": 10206,
}  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """template: word pieces, one of them [MASK]. position: `before` the sentence or `after` it. prefix: letters l, v, s
    for the modalities a sample has, then a colon, before the template. Where the text is [CLS] alone the prompt is all
    there is (the cross-modal form)."""

    template: tuple[int, ...]
    position: str = "before"
    prefix: bool = False

    def __post_init__(self):
        if self.template.count(MASK) != 1:
            raise MemofastError(f"a prompt's template holds one [MASK] ({MASK}), not {self.template.count(MASK)}")
        if self.position not in ("before", "after"):
            raise MemofastError(f"a prompt stands before or after the sentence, not {self.position!r}")

    @property
    def longest(self) -> int:
        """Most rows that it adds to a sample."""
        return len(self.template) + (len(_LETTERS) + 1) * self.prefix + 2

    def applied(self, batch: PackedBatch) -> tuple[PackedBatch, Tensor]:
        """The batch with the prompt in every sample's text, and the rows [B] int64 of the joint sequence that hold
        [MASK].

        A sentence that a prompt follows gets a full stop where it ends in none of . ? !. Lexicon targets leave, as they
        belong to other rows.
        """
        device, begins = batch.token_ids.device, batch.text_offsets.to(torch.int64)
        old, samples = batch.token_ids, batch.samples
        lengths = begins.diff()
        bodies = (lengths - 2).clamp(min=0)  # without [CLS] and [SEP]
        present = torch.stack(
            [bodies > 0, batch.visual_offsets.diff() > 0, batch.speech_offsets.diff() > 0], 1
        ) & torch.tensor(self.prefix, device=device)
        prefixes = present.sum(1) + int(self.prefix)
        last = old[(begins[1:] - 2).clamp(min=0)]
        bare = ~torch.isin(last, torch.tensor(_ENDS, dtype=old.dtype, device=device))
        stops = (bare & (bodies > 0)).to(torch.int64) if self.position == "after" else torch.zeros_like(bodies)
        template = torch.tensor(self.template, dtype=old.dtype, device=device)
        offsets = torch.zeros_like(begins)
        offsets[1:] = (2 + prefixes + len(template) + bodies + stops).cumsum(0)
        first, end = offsets[:-1], offsets[1:]
        prompt_at = first + 1 if self.position == "before" else first + 1 + bodies + stops
        body_at = end - 1 - bodies if self.position == "before" else first + 1

        tokens = old.new_full((int(offsets[-1]),), SEP)
        words = batch.word_ids.new_full(tokens.shape, -1)
        tokens[first] = old[begins[:-1]]
        sample = torch.repeat_interleave(torch.arange(samples, device=device), bodies)
        within = torch.arange(sample.numel(), device=device) - (bodies.cumsum(0) - bodies)[sample]
        source, place = begins[:-1][sample] + 1 + within, body_at[sample] + within
        tokens[place], words[place] = old[source], batch.word_ids[source]
        tokens[(body_at + bodies)[stops > 0]] = FULL_STOP
        if self.prefix:
            letters = torch.tensor(_LETTERS, dtype=old.dtype, device=device).expand(samples, -1)
            place = prompt_at[:, None] + present.cumsum(1) - 1
            tokens[place[present]] = letters[present]
            tokens[prompt_at + prefixes - 1] = COLON
        at = prompt_at + prefixes
        tokens[at[:, None] + torch.arange(len(template), device=device)] = template
        masked = at + self.template.index(MASK)

        text = offsets.to(batch.text_offsets.dtype)
        targets = {name: values for name, values in batch.targets.items() if name not in OF_TOKENS}
        prompted = replace(
            batch, token_ids=tokens, word_ids=words, text_offsets=text, targets=targets,
            offsets=text + batch.visual_offsets + batch.speech_offsets,
            longest=batch.longest and batch.longest + -(-self.longest // 32) * 32,
        )  # fmt: skip
        return prompted, prompted.joint_rows("text", masked.to(torch.int32))


class _WordHead(nn.Module):
    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.words = WordHead(config)


class MemoBertForPrompt(MemoBertPreTrainedModel):
    """Names the emotion by the word at a prompt's [MASK]; its parameters are those of pre-training.

    config.prompt: `template`, `position`, `prefix`, `words` (a word piece for each class) and `vocabulary`: whether the
    word is sought among all words, as the original did, where it may be no class at all, or among the classes' words.
    """

    def __init__(self, config: MemoBertConfig):
        super().__init__(config)
        given = config.prompt
        self.prompt = Prompt(tuple(given["template"]), given["position"], given["prefix"])
        self.memobert = MemoBertModel(config)
        self.heads = _WordHead(config)
        self.post_init()

    kind = "single"
    _may_begin_anew = "$^"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the outputs."""
        return self.outputs[: len(self.config.prompt["words"])]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The classes; where the word is sought in the whole vocabulary, then `another word`."""
        return tuple(self.config.id2label[number] for number in range(self.config.num_labels))

    @property
    def longest(self) -> Mapping[str, int]:
        """Of `text` without what the prompt adds."""
        return self.config.longest | {"text": self.config.longest["text"] - self.prompt.longest}

    @classmethod
    def start(
        cls,
        path: str | os.PathLike,
        classes: Sequence[str],
        prompt: Prompt,
        words: Sequence[int],
        *,
        whole_vocabulary: bool = False,
        soft_from_words: bool = False,
        **overrides,
    ) -> Self:
        """A model with the weights of a pre-trained or BERT checkpoint folder, or of a file of the original.

        Args: words: a word piece for each class. soft_from_words: the template's unused tokens begin as the mean of the
            classes' words.
        Raises: `MemofastError` where there is none of these, or the file has no head for words, or words and classes
            differ in number.
        """
        if len(words) != len(classes):
            raise MemofastError(f"{len(classes)} classes need as many words, not {len(words)}")
        named = (*classes, OTHER) if whole_vocabulary else tuple(classes)
        asked = {
            "tables": {}, "id2label": dict(enumerate(named)), "label2id": {name: n for n, name in enumerate(named)},
            "prompt": {
                "template": list(prompt.template), "position": prompt.position, "prefix": prompt.prefix,
                "words": list(words), "vocabulary": whole_vocabulary,
            },
        }  # fmt: skip
        named_pieces = max(*words, *prompt.template)
        if Path(path).is_file():
            model = cls._of_original(Path(path), named_pieces, overrides | asked)
        else:
            if is_bert(path):
                start = MemoBertForPreTraining.from_bert(path, **overrides)
            else:
                start = MemoBertForPreTraining.from_pretrained(path)
            _check_vocabulary(path, start.config.vocab_size, named_pieces)
            model = cls(MemoBertConfig(**{**start.config.to_dict(), **overrides, **asked}))
            model.load_state_dict(start.state_dict(), strict=False)  # other heads are left behind
        if soft_from_words:
            _begin_soft(model, prompt, words)
        return model.eval()

    @classmethod
    def _of_original(cls, path: Path, named_pieces: int, entries: dict) -> Self:
        found = describe(path, entries.get("num_attention_heads"))
        if not found.says_words:
            raise MemofastError(f"{path}: has no head for words, which a prompt needs; give a pre-trained checkpoint")
        _check_vocabulary(path, found.sizes["vocab_size"], named_pieces)
        return cls.from_original(path, **entries)

    def forward(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, outputs]; over the whole vocabulary log probabilities, the last that of all other words together.

        rng: as in `MemoBertModel.forward`.
        """
        scores = self._scores(View.of(seen), rng)
        words = torch.tensor(self.config.prompt["words"], device=scores.device)
        if not self.config.prompt["vocabulary"]:
            return scores[:, words]
        logs = scores.float().log_softmax(-1)
        others = logs.index_fill(1, words, float("-inf")).logsumexp(-1, keepdim=True)
        return torch.cat([logs[:, words], others], 1)

    @torch.no_grad()
    def probabilities(self, batch: PackedBatch) -> Tensor:
        """Probabilities [B, outputs] float32; over the whole vocabulary `another word` has that of the likeliest one,
        before all are made to sum to 1."""
        scores = self._scores(View(batch), None).float()
        words = torch.tensor(self.config.prompt["words"], device=scores.device)
        if not self.config.prompt["vocabulary"]:
            return scores[:, words].softmax(-1)
        other = scores.index_fill(1, words, float("-inf")).amax(-1, keepdim=True)
        return torch.cat([scores[:, words], other], 1).softmax(-1)

    def _scores(self, view: View, rng: Tensor | None) -> Tensor:
        if view.token_ids is not None or view.added is not None or "text" in view.positions:
            raise ValueError("a prompt changes the text; a view that changes it as well cannot be combined with it")
        prompted, rows = self.prompt.applied(view.batch)
        hidden = self.memobert.encode(replace(view, batch=prompted), rng, ReadRows.of(prompted, [rows]))
        return self.heads.words(hidden, self.memobert.embeddings.word.weight)


def _check_vocabulary(path: str | os.PathLike, known: int, named: int) -> None:
    if known <= named:
        raise MemofastError(
            f"{path} knows {known} word pieces, the prompt names {named}; give template and words in the model's own "
            "vocabulary"
        )


@torch.no_grad()
def _begin_soft(model: MemoBertForPrompt, prompt: Prompt, words: Sequence[int]) -> None:
    table = model.memobert.embeddings.word.weight
    for piece in prompt.template:
        if 1 <= piece <= 99:  # [unused0] to [unused98]
            table[piece] = table[list(words)].mean(0)

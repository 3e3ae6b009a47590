"""An emotion model that names the emotion by the word at a prompt's [MASK]. Word pieces are those of
bert-base-uncased."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from memofast.data.batch import PackedBatch
from memofast.data.prompt import Prompt
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.encoder import ReadRows
from memofast.model.memobert.heads import WordHead
from memofast.model.memobert.original import describe
from memofast.model.memobert.pre_training import MemoBertForPreTraining, MemoBertModel, MemoBertPreTrainedModel, is_bert
from memofast.model.problems import LearnsByAnswers

if TYPE_CHECKING:
    from typing import Self

OTHER = "another word"  # what a whole-vocabulary prediction is that names no class


class _WordHead(nn.Module):
    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.words = WordHead(config)


class MemoBertForPrompt(LearnsByAnswers, MemoBertPreTrainedModel):
    """Names the emotion by the word at a prompt's [MASK]; its parameters are those of pre-training.

    config.prompt: `template`, `position`, `prefix`, `words` (a word piece for each class) and `vocabulary`: whether the
    word is sought among all words, as the original did, where it may be no class at all, or among the classes' words.
    """

    encoder_class, pre_training_class = MemoBertModel, MemoBertForPreTraining

    def __init__(self, config: MemoBertConfig):
        super().__init__(config)
        given = config.prompt
        self.prompt = Prompt(tuple(given["template"]), given["position"], given["prefix"])
        self.memobert = self.encoder_class(config)
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
                start = cls.pre_training_class.from_bert(path, **overrides)
            else:
                start = cls.pre_training_class.from_pretrained(path)
                start.given = frozenset(name for name in start.state_dict() if name.startswith("memobert."))
            _check_vocabulary(path, start.config.vocab_size, named_pieces)
            model = cls(cls.config_class(**{**start.config.to_dict(), **overrides, **asked}))
            model.load_state_dict(start.state_dict(), strict=False)  # other heads are left behind
            model.given = start.given
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

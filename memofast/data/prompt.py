"""Prompts: a template with [MASK] in a sample's text, whose masked word names the emotion.

Source: MEmoBERT's prompt tasks (promptmask, flexpromptmask, flexpromptmissmask and their cross-modal forms).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memofast.data.batch import OF_TOKENS, PackedBatch
from memofast.errors import MemofastError

MASK_PIECE = "[MASK]"
WORDS = {
    "anger": 4963, "angry": 4854, "happy": 3407, "happiness": 8404, "joy": 6569, "neutral": 8699, "sad": 6517,
    "sadness": 12039, "surprise": 4474, "surprised": 4527, "fear": 3571, "fearful": 19725, "disgust": 12721,
    "calm": 5475, "boredom": 29556, "excited": 7568, "frustrated": 10206,
}  # fmt: skip
# of bert-base-uncased, whose ids stand for a vocabulary that is not known
BERT = {
    MASK_PIECE: 103, "[SEP]": 102, ".": 1012, "?": 1029, "!": 999, ":": 1024, "l": 1048, "v": 1058, "s": 1055,
    "t": 1056, "i": 1045, "am": 2572, "it": 2009, "was": 2001, "he": 2002, "is": 2003, "feel": 2514, "through": 2083,
} | {f"[unused{number}]": number + 1 for number in range(99)} | WORDS  # fmt: skip


def _unused(first: int, last: int) -> str:
    return " ".join(f"[unused{number}]" for number in range(first, last + 1))


TEXTS = {
    "iam": "i am [MASK] .",
    "itwas": "it was [MASK] .",
    "heis": "he is [MASK] .",
    "ifeel": "i feel [MASK] through",
    "svtifeel": "t v s : i feel [MASK] through",
    # soft prompts: unused tokens, trained like any other
    "softprompt3": f"{_unused(1, 3)} [MASK] {_unused(4, 6)}",
    "softprompt5": f"{_unused(1, 5)} [MASK] {_unused(6, 10)}",
    "halfsoftprompt3": f"{_unused(1, 3)} [MASK]",
    "halfsoftprompt3iam": f"{_unused(1, 3)} i am [MASK]",
    "halfsoftprompt5iam": f"{_unused(1, 5)} i am [MASK]",
}
TEMPLATES = {name: tuple(BERT[piece] for piece in text.split()) for name, text in TEXTS.items()}
MASK = BERT[MASK_PIECE]


@dataclass(frozen=True)
class Marks:
    """Word pieces that a prompt writes beside its template, or looks for, bert-base-uncased's unless said.

    ends: of a sentence that needs no full stop more. letters: l, v, s, for what a sample has.
    """

    mask: int = MASK
    separator: int = BERT["[SEP]"]
    full_stop: int = BERT["."]
    ends: tuple[int, ...] = (BERT["."], BERT["?"], BERT["!"])
    letters: tuple[int, ...] = (BERT["l"], BERT["v"], BERT["s"])
    colon: int = BERT[":"]

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], needed: Mapping[str, bool]) -> Marks:
        """Those of a vocabulary. needed: by field, whether what it holds is going to be written.

        Raises: `ValueError` for a piece that is needed and not there.
        """
        pieces = {
            "mask": (MASK_PIECE,), "separator": ("[SEP]",), "full_stop": (".",), "ends": (".", "?", "!"),
            "letters": ("l", "v", "s"), "colon": (":",),
        }  # fmt: skip
        found = {}
        for name, own in pieces.items():
            there = tuple(vocabulary[piece] for piece in own if piece in vocabulary)
            if needed.get(name) and len(there) < len(own):
                lost = next(piece for piece in own if piece not in vocabulary)
                raise ValueError(f"the model's vocabulary has no word piece {lost!r}, which it needs")
            found[name] = there if name in ("ends", "letters") else (*there, -1)[0]
        return cls(**found)


@dataclass(frozen=True)
class Prompt:
    """template: word pieces, one of them [MASK]. position: `before` the sentence or `after` it. prefix: letters l, v, s
    for the modalities a sample has, then a colon, before the template. apart: [SEP] stands between sentence and prompt.
    Where the text is [CLS] alone the prompt is all there is (the cross-modal form)."""

    template: tuple[int, ...]
    position: str = "before"
    prefix: bool = False
    marks: Marks = Marks()
    apart: bool = False

    def __post_init__(self):
        mask = self.marks.mask
        if self.template.count(mask) != 1:
            raise MemofastError(f"a prompt's template holds one [MASK] ({mask}), not {self.template.count(mask)}")
        if self.position not in ("before", "after"):
            raise MemofastError(f"a prompt stands before or after the sentence, not {self.position!r}")

    @property
    def longest(self) -> int:
        """Most rows that it adds to a sample."""
        return len(self.template) + (len(self.marks.letters) + 1) * self.prefix + 2 + self.apart

    def applied(self, batch: PackedBatch, selected: Tensor | None = None) -> tuple[PackedBatch, Tensor]:
        """The batch with the prompt in the text of each selected sample, and the rows [k] int64 of the joint sequence
        that hold its [MASK].

        A sentence that a prompt follows gets a full stop where it ends in none of . ? !. Word pieces of the prompt have
        no lexicon class.

        Args: selected [B] bool; None: all.
        """
        device, begins = batch.token_ids.device, batch.text_offsets.to(torch.int64)
        old, samples = batch.token_ids, batch.samples
        chosen = torch.ones(samples, dtype=torch.bool, device=device) if selected is None else selected
        changed, lengths = chosen.to(torch.int64), begins.diff()
        bodies = (lengths - 2).clamp(min=0)  # without [CLS] and [SEP]
        kept = torch.where(chosen, bodies, lengths - 1)  # after [CLS]
        present = torch.stack(
            [bodies > 0, batch.visual_offsets.diff() > 0, batch.speech_offsets.diff() > 0], 1
        ) & torch.tensor(self.prefix, device=device)
        prefixes = present.sum(1) + int(self.prefix)
        last = old[(begins[1:] - 2).clamp(min=0)]
        bare = ~torch.isin(last, torch.tensor(self.marks.ends, dtype=old.dtype, device=device))
        stops = (bare & (bodies > 0) & chosen & torch.tensor(self.position == "after", device=device)).to(torch.int64)
        gaps = ((bodies > 0) & chosen).to(torch.int64) * self.apart  # filled with [SEP], as what is not written below
        prompts = (prefixes + len(self.template)) * changed
        offsets = torch.zeros_like(begins)
        offsets[1:] = (1 + kept + stops + gaps + prompts + changed).cumsum(0)
        first = offsets[:-1]
        prompt_at = first + 1 + (0 if self.position == "before" else kept + stops + gaps)
        kept_at = first + 1 + (prompts + gaps if self.position == "before" else 0)

        tokens = old.new_full((int(offsets[-1]),), self.marks.separator)
        words = batch.word_ids.new_full(tokens.shape, -1)
        sample = torch.repeat_interleave(torch.arange(samples, device=device), kept)
        within = torch.arange(sample.numel(), device=device) - (kept.cumsum(0) - kept)[sample]
        source = torch.cat((begins[:-1], begins[:-1][sample] + 1 + within))
        place = torch.cat((first, kept_at[sample] + within))
        tokens[place], words[place] = old[source], batch.word_ids[source]
        tokens[(kept_at + kept)[stops > 0]] = self.marks.full_stop
        if self.prefix:
            letters = torch.tensor(self.marks.letters, dtype=old.dtype, device=device).expand(samples, -1)
            place_of = (prompt_at[:, None] + present.cumsum(1) - 1)[chosen]
            tokens[place_of[present[chosen]]] = letters[chosen][present[chosen]]
            tokens[(prompt_at + prefixes - 1)[chosen]] = self.marks.colon
        at = (prompt_at + prefixes)[chosen]
        template = torch.tensor(self.template, dtype=old.dtype, device=device)
        tokens[at[:, None] + torch.arange(len(template), device=device)] = template
        masked = at + self.template.index(self.marks.mask)

        targets = dict(batch.targets)
        for name in OF_TOKENS.keys() & targets.keys():
            targets[name] = batch.targets[name].new_full(words.shape, OF_TOKENS[name])
            targets[name][place] = batch.targets[name][source]
        text = offsets.to(batch.text_offsets.dtype)
        prompted = replace(
            batch, token_ids=tokens, word_ids=words, text_offsets=text, targets=targets,
            offsets=text + batch.visual_offsets + batch.speech_offsets,
            longest=batch.longest and batch.longest + -(-self.longest // 32) * 32,
        )  # fmt: skip
        return prompted, prompted.joint_rows("text", masked.to(torch.int32))

"""The text of an utterance in its dialogue: what was said before it, who says it, and the question what they feel.

    [CLS] speaker 1 : words speaker 2 : words [SEP] speaker 1 : own words [SEP] speaker 1 feels [MASK] [SEP]

Source: SPCL (Song et al., EMNLP 2022) and TelME (Yun et al., 2024), which name speakers otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from memofast.data.batch import PackedBatch
from memofast.data.modality import FEATURES
from memofast.data.prompt import MASK_PIECE
from memofast.errors import MemofastError
from memofast.sections import Section


class Context(Section):
    """What a text model reads of the dialogue around an utterance.

    utterances: most earlier ones that are read; later: most later ones, 0 is causal. tokens: rows of a text, with
    [CLS] and the question, up to which others' words are read: the earliest are cut first, on their left, then the
    latest; an utterance itself is never cut. query: where "speaker 1 feels [MASK]" stands, whose masked row is read in
    place of that of [CLS]; None: nowhere. pool: `row`, that one row is read, or `words`, the mean of the rows of the
    utterance's own words. speakers: whether they are numbered, in the order in which they speak in the dialogue.
    visual, speech: rows of a sample up to which others' faces and speech are read after its own, see `dialogue_rows`;
    0: its own alone.
    """

    model_config = ConfigDict(frozen=True)

    utterances: Annotated[int, Field(ge=0, le=10**4)] = 8
    later: Annotated[int, Field(ge=0, le=10**4)] = 0
    tokens: Annotated[int, Field(ge=1, le=2**16)] = 256
    query: Literal["before", "after"] | None = "after"
    pool: Literal["row", "words"] = "row"
    speakers: bool = True
    visual: Annotated[int, Field(ge=0, le=2**16)] = 0
    speech: Annotated[int, Field(ge=0, le=2**16)] = 0

    @property
    def rows(self) -> dict[str, int]:
        """Most rows of each modality whose rows of other utterances are read, with its own."""
        asked = {name: getattr(self, name) for name in FEATURES}
        return {name: most for name, most in asked.items() if most}


class Around(NamedTuple):
    """Rows of others' words in texts [n] int64 each: of earlier and of later utterances."""

    earlier: np.ndarray
    later: np.ndarray


class Wording:
    """Word pieces that are written beside what was said. cls, sep, mask: what begins and ends a text, and what is asked
    at; mask None: the vocabulary has none."""

    cls: int
    sep: int
    mask: int | None

    def pieces(self, text: str) -> tuple[int, ...]:
        """Of words between spaces. Raises: `MemofastError` for one that the vocabulary cannot spell."""
        raise NotImplementedError

    def mark(self, speaker: int | None) -> tuple[int, ...]:
        """Before an utterance: `speaker 1 :`; None: a speaker who is not known."""
        return self.pieces(f"speaker {speaker or ''} :")

    def query(self, speaker: int | None) -> tuple[int, ...]:
        """`speaker 1 feels [MASK]`. Raises: `MemofastError` where the vocabulary has no [MASK]."""
        if self.mask is None:
            raise unspelt(MASK_PIECE)
        return (*self.pieces(f"speaker {speaker or ''} feels"), self.mask)


class PieceWording(Wording):
    """In a vocabulary of BERT's word pieces, the id of each by name."""

    def __init__(self, vocabulary: Mapping[str, int]):
        self.vocabulary = vocabulary
        (self.cls,), (self.sep,) = self.pieces("[CLS]"), self.pieces("[SEP]")
        self.mask = vocabulary.get(MASK_PIECE)

    def pieces(self, text: str) -> tuple[int, ...]:
        return tuple(piece for word in text.split() for piece in self._spelt(word))

    def _spelt(self, word: str) -> list[int]:
        """The longest pieces from the left, as a tokenizer finds them."""
        found, start = [], 0
        while start < len(word):
            rests = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
            piece = next((rest for rest in rests if rest in self.vocabulary), None)
            if piece is None:
                raise unspelt(word)
            found.append(self.vocabulary[piece])
            start += len(piece) - 2 * bool(start)
        return found


def unspelt(word: str) -> MemofastError:
    """That a vocabulary lacks what context writes."""
    return MemofastError(
        f"context: the vocabulary has no word piece for {word!r}, which it writes; prepare the corpus with a "
        "vocabulary that has"
    )


class Telling:
    """Writes texts with context. words: how what stands beside them is written; of BERT the vocabulary. mask: piece
    that is asked at, None where nothing is asked.

    Raises: `MemofastError` where the vocabulary lacks what is written.
    """

    def __init__(self, context: Context, words: Wording | Mapping[str, int]):
        self.context = context
        self.wording = words if isinstance(words, Wording) else PieceWording(words)
        self.cls, self.sep = self.wording.cls, self.wording.sep
        self.mask = self.wording.query(None)[-1] if context.query else None
        self._known: dict[int | None, tuple[np.ndarray, np.ndarray]] = {}
        self.mark(None), self.mark(1)

    def mark(self, speaker: int | None) -> np.ndarray:
        """Pieces [n] int32 before an utterance."""
        return self._of(speaker)[0]

    def query(self, speaker: int | None) -> np.ndarray:
        """Pieces [n] int32 of the question with its [SEP]; none where nothing is asked."""
        return self._of(speaker)[1]

    def _of(self, speaker: int | None) -> tuple[np.ndarray, np.ndarray]:
        if speaker not in self._known:
            asked = (*self.wording.query(speaker), self.sep) if self.context.query else ()
            mark = np.array(self.wording.mark(speaker), np.int32)
            self._known[speaker] = mark, np.array(asked, np.int32)
        return self._known[speaker]

    def alone(self, said: np.ndarray, speaker: Sequence[int | None]) -> np.ndarray:
        """Rows of texts without others' words [n] int64. said [n]: word pieces of each utterance."""
        return said + 2 + np.array([len(self.mark(one)) + len(self.query(one)) for one in speaker], np.int64)

    def room(self, alone: np.ndarray, earlier: np.ndarray, later: np.ndarray) -> Around:
        """What others' words are cut to, each with a [SEP] where there are any. earlier, later [n]: marked pieces that
        there are."""
        room = np.maximum(self.context.tokens - alone, 0)
        kept = np.clip(room - (later + (later > 0)) - 1, 0, earlier)
        return Around(kept, np.clip(room - (kept + (kept > 0)) - 1, 0, later))

    def text(
        self, earlier: np.ndarray, said: np.ndarray, later: np.ndarray, speaker: int | None
    ) -> tuple[np.ndarray, int]:
        """A text [n] int32, and where the words said begin in it. earlier, later: what is read of others, marked."""
        query, sep, mark = self.query(speaker), np.array([self.sep], np.int32), self.mark(speaker)
        before = [np.array([self.cls], np.int32)]
        before += [query] if self.context.query == "before" else []
        before += [earlier, sep] if len(earlier) else []
        after = [sep, *([later, sep] if len(later) else [])]
        after += [query] if self.context.query == "after" else []
        return np.concatenate([*before, mark, said, *after]), sum(map(len, before)) + len(mark)


def speaker_numbers(speakers: Sequence[str | None]) -> list[int | None]:
    """Numbers from 1 in the order in which the speakers of one dialogue begin to speak; None: one not known."""
    known: dict[str, int] = {}
    return [None if name is None else known.setdefault(name, len(known) + 1) for name in speakers]


def asked_rows(batch: PackedBatch, mask: int, query: str) -> Tensor:
    """Rows [B] int64 of the joint sequence that hold the question's [MASK]; that of [CLS] where a text is not shown.

    mask: the token. query: `before` or `after`, so that a [MASK] among the words is none.
    """
    begins, device = batch.text_offsets.to(torch.int64), batch.token_ids.device
    row = torch.arange(batch.token_ids.shape[0], device=device)
    sample = torch.searchsorted(begins[1:], row, right=True).clamp(max=max(batch.samples - 1, 0))
    masked = (batch.token_ids == mask) & (row < begins[-1])
    place = row - begins[sample]
    most = batch.token_ids.shape[0]
    if query == "after":
        found = torch.zeros_like(begins[1:]).scatter_reduce(0, sample, torch.where(masked, place, 0), "amax")
    else:
        found = torch.full_like(begins[1:], most)
        found = found.scatter_reduce(0, sample, torch.where(masked, place, most), "amin") % max(most, 1)
    return (batch.offsets[:-1].to(torch.int64) + found).clamp(max=max(batch.rows - 1, 0))


def own_word_rows(batch: PackedBatch) -> Tensor:
    """Rows [n] int64 of the joint sequence, ascending, that hold the words of the utterances themselves; of a sample
    without words that of [CLS]. n is no fixed number."""
    begins = batch.text_offsets.to(torch.int64)
    row = torch.arange(batch.word_ids.shape[0], device=begins.device)
    sample = torch.searchsorted(begins[1:], row, right=True).clamp(max=max(batch.samples - 1, 0))
    own = (batch.word_ids >= 0) & (row < begins[-1])
    having = torch.zeros_like(begins[1:]).index_add(0, sample, own.to(torch.int64))
    own |= (having == 0)[sample] & (row == begins[sample]) & (row < begins[-1])
    place = own.nonzero().flatten()
    return batch.offsets[sample[place]].to(torch.int64) + place - begins[sample[place]]

"""A corpus whose texts are read in their dialogues: its groups `dialogue`, `position` and `speaker` say what was said
before."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from memofast.data.batch import OF_TOKENS
from memofast.data.corpus import Corpus
from memofast.data.dialogue import Context, Telling, Wording, speaker_numbers
from memofast.data.dialogue_rows import DialogueRows
from memofast.data.folds import read_groups
from memofast.data.store_in_dialogues import StoreInDialogues
from memofast.errors import MemofastError
from memofast.store import TextStore

_SPECIAL = 2  # rows of an utterance: [CLS], [SEP]


def in_dialogues(corpus: Corpus, context: Context, words: Wording | Mapping[str, int]) -> Corpus:
    """The same corpus, whose texts have their context, and whose faces and speech, as far as it has any, where it asks
    for theirs; one without words stays [CLS] alone, and is in nobody's context. A sample without a dialogue is one by
    itself.

    Args: words: see `Telling`, in the corpus's vocabulary.
    Raises: `MemofastError` where the corpus has no dialogues, positions or speakers, or a position is no number or
        taken, and where it has context of another kind.
    """
    text = corpus.stores["text"]
    if isinstance(text, DialogueText):
        if text.telling.context != context:
            raise MemofastError(f"corpus {corpus.path} is read with another context; open it anew")
        return corpus
    placed, speakers = _dialogues(corpus, context.speakers)
    stores = corpus.stores | {"text": DialogueText(text, Telling(context, words), placed, speakers)}
    said = [[text.ids[place] for place in dialogue] for dialogue in placed]
    for name, most in context.rows.items():
        if (store := corpus.stores.get(name)) is not None:
            places = [np.array([store.place_of.get(id, -1) for id in ids], np.int64) for ids in said]
            stores[name] = DialogueRows(store, places, context.utterances, context.later, most)
    return replace(corpus, stores=stores)


def utterances_alone(corpus: Corpus) -> Corpus:
    """The same corpus, which has no context."""
    if telling_of(corpus) is None:
        return corpus
    around = {name: store.store for name, store in corpus.stores.items() if isinstance(store, StoreInDialogues)}
    return replace(corpus, stores=corpus.stores | around)


def telling_of(corpus: Corpus) -> Telling | None:
    """How a corpus's texts are written; None where they are utterances alone."""
    text = corpus.stores["text"]
    return text.telling if isinstance(text, DialogueText) else None


def samples_cut(corpus: Corpus) -> dict[str, int]:
    """By modality the samples of which less is read around them than the context asks for, as its rows end."""
    return {name: store.cut for name, store in corpus.stores.items() if isinstance(store, StoreInDialogues)}


def samples_unplaced(corpus: Corpus) -> tuple[int, int]:
    """Samples of no dialogue, and others whose speaker is not known where the context numbers speakers."""
    context, ids = context_of(corpus), corpus.stores["text"].ids
    asked = ("dialogue", "speaker") if context.speakers else ("dialogue",)
    dialogue_of, *speaker_of = (_groups(corpus, name) for name in asked)
    unknown = sum(id in dialogue_of and id not in known for known in speaker_of for id in ids)
    return sum(id not in dialogue_of for id in ids), unknown


def positions_skipped(corpus: Corpus) -> tuple[int, int]:
    """Numbers between the positions of a dialogue that no sample of it has, of all dialogues, and in how many of them
    there are such."""
    position_of, said = _groups(corpus, "position"), {}
    for id, dialogue in _groups(corpus, "dialogue").items():
        if id in corpus.stores["text"].place_of:
            said.setdefault(dialogue, []).append(int(position_of[id]))
    skipped = [max(numbers) - min(numbers) + 1 - len(numbers) for numbers in said.values()]
    return sum(skipped), sum(map(bool, skipped))


def context_of(corpus: Corpus) -> Context | None:
    """The context that a corpus's texts are read with."""
    telling = telling_of(corpus)
    return telling.context if telling else None


class DialogueText(StoreInDialogues, TextStore):
    """A store of texts, whose batches have context; `read` gives the utterance alone.

    Args: dialogues: places in the store, in the order in which they were said. speakers: of each record, None where
        unknown.
    """

    def __init__(
        self, store: TextStore, telling: Telling, dialogues: Sequence[np.ndarray], speakers: Sequence[str | None]
    ):
        super().__init__(store)
        self.telling = telling
        self._said = np.maximum(store.lengths.astype(np.int64) - _SPECIAL, 0)
        self._speaker: list[int | None] = [None] * len(store)
        self._stream, self._begin, self._end = self._marked(dialogues, speakers)
        self._first, self._last = self._begin.copy(), self._end.copy()
        context = telling.context
        for dialogue in dialogues:
            number = np.arange(len(dialogue))
            self._first[dialogue] = self._begin[dialogue[np.maximum(number - context.utterances, 0)]]
            self._last[dialogue] = self._end[dialogue[np.minimum(number + context.later, len(dialogue) - 1)]]
        alone = telling.alone(self._said, self._speaker)
        self._around = telling.room(alone, self._begin - self._first, self._last - self._end)
        lengths = alone + sum(rows + (rows > 0) for rows in self._around)
        self.lengths = np.where(self._said > 0, lengths, store.lengths).astype(np.int32)

    @property
    def cut(self) -> int:
        """Texts whose context is cut at `Context.tokens`."""
        earlier, later = self._around
        cut = (earlier < self._begin - self._first) | (later < self._last - self._end)
        return int((cut & (self._said > 0)).sum())

    def _marked(
        self, dialogues: Sequence[np.ndarray], speakers: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All utterances with words, marked, dialogue after dialogue [n] int32, and where each record's lie in it."""
        pieces, starts = self._pieces(np.arange(len(self.ids)))
        begin, end = np.zeros((2, len(self.ids)), np.int64)
        parts, rows = [], 0
        for dialogue in dialogues:
            numbers = speaker_numbers([speakers[place] for place in dialogue])
            for place, number in zip(dialogue.tolist(), numbers, strict=True):
                self._speaker[place], begin[place] = number, rows
                if self._said[place]:
                    said = pieces[starts[place] + 1 : starts[place + 1] - 1]
                    parts += [self.telling.mark(number), said]
                    rows += len(parts[-2]) + len(said)
                end[place] = rows
        return np.concatenate(parts) if parts else np.zeros(0, np.int32), begin, end

    def _pieces(self, places: np.ndarray, column: str = "tokens") -> tuple[np.ndarray, np.ndarray]:
        """A column of utterances alone [n] int32, with that of [CLS] and [SEP], and where each begins [B+1] int64."""
        rows = self.store.lengths[places].astype(np.int64)
        starts = np.append(0, rows.cumsum())
        found = np.zeros(int(starts[-1]), np.int32)
        self.store.gather(places, rows, starts[:-1].copy(), [(column, 1, _INT32, found.ctypes.data)])
        return found, starts

    def gather(
        self,
        places: np.ndarray,
        rows: np.ndarray,
        first_row: np.ndarray,
        columns: Sequence[tuple[str, int, int, int]],
    ) -> None:
        """As `Store.gather`, with context. Word ids and classes of others' words are those of special tokens."""
        if not len(places):
            return
        if of_samples := [column for column in columns if column[0] not in _FILL]:
            own = self.store.lengths[places].astype(np.int64)
            self.store.gather(places, own, np.append(0, own.cumsum())[:-1].copy(), of_samples)
        total, texts = int((first_row + rows).max()), [self._text(place) for place in places.tolist()]
        for name, _, _, address in (column for column in columns if column[0] in _FILL):
            out = np.frombuffer((ctypes.c_int32 * total).from_address(address), np.int32)
            if name == "tokens":
                for begin, (text, _) in zip(first_row.tolist(), texts, strict=True):
                    out[begin : begin + len(text)] = text
                continue
            said, starts = self._pieces(places, name)
            for i, (begin, (text, at)) in enumerate(zip(first_row.tolist(), texts, strict=True)):
                out[begin : begin + len(text)] = _FILL[name]
                own = said[starts[i] + 1 : starts[i + 1] - 1]
                out[begin + at : begin + at + len(own)] = own

    def _text(self, place: int) -> tuple[np.ndarray, int]:
        """A record's text, and where its own words begin in it."""
        speaker, stream = self._speaker[place], self._stream
        if not self._said[place]:
            return np.array([self.telling.cls], np.int32), 1
        earlier, later = (int(rows[place]) for rows in self._around)
        begin, end = int(self._begin[place]), int(self._end[place])
        said = stream[begin + len(self.telling.mark(speaker)) : end]
        return self.telling.text(stream[begin - earlier : begin], said, stream[end : end + later], speaker)


_INT32 = 3  # as `memofast.store.memory.TYPE_IDS` has it
_FILL = {"tokens": 0, "words": -1} | OF_TOKENS


def _dialogues(corpus: Corpus, with_speakers: bool) -> tuple[list[np.ndarray], list[str | None]]:
    """Places of each dialogue's samples in the text store, in their order, and the speaker of each record."""
    dialogue_of, position_of = (_groups(corpus, name) for name in ("dialogue", "position"))
    speaker_of = _groups(corpus, "speaker") if with_speakers else {}
    members: dict[str, dict[int, int]] = {}
    alone = []
    for place, id in enumerate(corpus.stores["text"].ids):
        if id not in dialogue_of:
            alone.append(np.array([place]))
            continue
        said = position_of.get(id, "")
        if not said.isdecimal() or int(said) in members.setdefault(dialogue_of[id], {}):
            what = f"position {said!r}, which another one has too" if said.isdecimal() else f"no position ({said!r})"
            raise MemofastError(
                f"corpus {corpus.path}: sample {id!r} of dialogue {dialogue_of[id]!r} has {what}; write a number of "
                "its own for each into groups/position.tsv"
            )
        members[dialogue_of[id]][int(said)] = place
    ordered = [np.array([own[number] for number in sorted(own)]) for own in members.values()]
    by_itself = "" if with_speakers else None  # whoever speaks there is the first one
    ids = corpus.stores["text"].ids
    return ordered + alone, [speaker_of.get(id, None if id in dialogue_of else by_itself) for id in ids]


def _groups(corpus: Corpus, name: str) -> dict[str, str]:
    if name not in corpus.description.get("groups", {}):
        remedy = "; context.speakers=false reads it without them" if name == "speaker" else ""
        raise MemofastError(
            f"corpus {corpus.path} has no groups {name!r}, which context is made of: prepare its table with "
            f"-c {name}=COLUMN, or a corpus of dialogues with --corpus NAME, as meld{remedy}"
        )
    return read_groups(corpus, name)

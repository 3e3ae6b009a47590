"""What is said in films and dialogues one utterance after another, as context of the next one."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from memofast.data.dialogue import Context, Telling, speaker_numbers
from memofast.data.dialogue_rows import joined, that_fit
from memofast.inference.watching import Utterance
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.spellings import spelling_notes

_UNKNOWN = "who speaks is not known, so that the speaker has no number"


@dataclass(frozen=True)
class Moment:
    """Where something is said. dialogue: name, a film's is its file; None: by itself. at: place in it, as position and
    seconds; speaker: who says it; None where unknown."""

    dialogue: str | None = None
    at: tuple[float, ...] | None = None
    speaker: str | None = None

    @classmethod
    def of(cls, clip: Clip, start: float | None, track: int | None) -> Moment:
        """That of an utterance: where its table names a dialogue the place there, else its film. start: seconds; track:
        number of the person of the film who speaks."""
        if clip.dialogue is not None:
            return cls(f"dialogue {clip.dialogue}", (clip.position, start or 0.0), clip.speaker)
        file = None if clip.by_itself else clip.picture or clip.sound
        at = None if start is None else (start,)
        return cls(file and f"film {file}", at, clip.speaker or (None if track is None else f"face {track}"))


@dataclass(frozen=True)
class _Heard:
    """An utterance. ids [n] int32: its words; rows: [rows, width] by modality, as far as they may be read again."""

    moment: Moment
    ids: np.ndarray
    rows: Mapping[str, np.ndarray]


@dataclass
class _Dialogue:
    """What was said so far, in its order, what has no place first. places: of each, () without one; numbers: of its
    speaker; known: of each speaker."""

    heard: list[_Heard] = field(default_factory=list)
    places: list[tuple[float, ...]] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def before(self, moment: Moment) -> slice:
        """Which are earlier; those that came out of turn and begin later are none."""
        if moment.at is None:
            return slice(0, len(self.heard))
        return slice(bisect_right(self.places, ()), bisect_right(self.places, moment.at))

    def numbers_with(self, before: slice, speaker: str | None) -> tuple[list[int | None], int | None]:
        """Numbers of the speakers of earlier utterances, and of who speaks next. All are counted anew only where some
        utterance stands outside, so that a long dialogue that comes in turn is read in a time linear in it."""
        if before == slice(0, len(self.heard)):
            return self.numbers, None if speaker is None else self.known.get(speaker, len(self.known) + 1)
        *numbers, number = speaker_numbers([one.moment.speaker for one in self.heard[before]] + [speaker])
        return numbers, number

    def hear(self, one: _Heard, rows_of: int) -> None:
        """Put an utterance in its place. rows_of: the last utterances whose rows are kept."""
        at = one.moment.at or ()
        place = bisect_right(self.places, at)
        self.heard.insert(place, one), self.places.insert(place, at)
        if place == len(self.numbers):
            self.numbers.append(None if (name := one.moment.speaker) is None else self._number(name))
        else:
            self.numbers = speaker_numbers([other.moment.speaker for other in self.heard])
            named = zip(self.heard, self.numbers, strict=True)
            self.known = {other.moment.speaker: number for other, number in named if number is not None}
        if (last := min(place, len(self.heard) - rows_of - 1)) >= 0:
            self.heard[last] = replace(self.heard[last], rows={})

    def _number(self, speaker: str) -> int:
        return self.known.setdefault(speaker, len(self.known) + 1)


@dataclass
class HeardDialogues:
    """The texts and rows of utterances that come in turn, each with what its dialogue said and showed before it; a film
    is one dialogue, where no table says otherwise."""

    telling: Telling
    _dialogues: dict[str, _Dialogue] = field(default_factory=dict)

    def text(
        self, ids: Sequence[int], words: Sequence[int], moment: Moment
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Token ids and word ids [n] int32 of an utterance in its dialogue, as a corpus of it has them, and what is to
        be noted."""
        context, dialogue = self.telling.context, self._dialogue(moment)
        before = dialogue.before(moment)
        speaker = "" if moment.dialogue is None else moment.speaker
        numbers, number = dialogue.numbers_with(before, speaker if context.speakers else None)
        nearest = self._nearest(before)
        numbers = numbers[nearest.start - before.start : nearest.stop - before.start]
        said, parts = np.array(ids, np.int32), [np.zeros(0, np.int32)]
        for one, of in zip(dialogue.heard[nearest], numbers, strict=True):
            parts += [self.telling.mark(of if context.speakers else None), one.ids] if len(one.ids) else []
        earlier = np.concatenate(parts)
        alone = self.telling.alone(np.array([len(said)]), [number])
        (kept,), _ = self.telling.room(alone, np.array([len(earlier)]), np.array([0]))
        notes = (_UNKNOWN,) if context.speakers and number is None else ()
        if kept < len(earlier):
            notes += (f"the last {kept} of {len(earlier)} word pieces said before are read",)
        tokens, at = self.telling.text(earlier[len(earlier) - kept :], said, earlier[:0], number)
        placed = np.full(len(tokens), -1, np.int32)
        placed[at : at + len(said)] = words
        return tokens, placed, notes

    def rows(self, own: Mapping[str, np.ndarray], moment: Moment) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Rows of an utterance in its dialogue, by modality, as a corpus of it has them, and what is to be noted."""
        context, dialogue = self.telling.context, self._dialogue(moment)
        nearest = dialogue.heard[self._nearest(dialogue.before(moment))][::-1]
        found, notes = dict(own), ()
        for modality, most in context.rows.items():
            if modality in own:
                others = [one.rows.get(modality, own[modality][:0]) for one in nearest]
                kept, _ = that_fit(len(own[modality]), [len(rows) for rows in others], (), most)
                found[modality] = joined(own[modality], others[:kept])
                if len(own[modality]) and kept < len(others):
                    notes += (f"{modality} rows of {kept} of the {len(others)} utterances before are read",)
        return found, notes

    def hear(self, ids: Sequence[int], moment: Moment, rows: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """Take an utterance, with or without words, into its dialogue. rows: its own, by modality; they are kept of the
        last ones that are heard, as many as are read."""
        if moment.dialogue is None:
            return
        context, dialogue = self.telling.context, self._dialogues.setdefault(moment.dialogue, _Dialogue())
        kept = {name: rows[name] for name in context.rows if name in rows}
        dialogue.hear(_Heard(moment, np.array(ids, np.int32), kept), context.utterances)

    def _dialogue(self, moment: Moment) -> _Dialogue:
        return self._dialogues.get(moment.dialogue) or _Dialogue()

    def _nearest(self, before: slice) -> slice:
        """Those of the earlier ones that are read."""
        return slice(max(before.stop - self.telling.context.utterances, before.start), before.stop)


def in_turn(clips: Iterable[Clip]) -> list[Clip]:
    """Clips of a dialogue, and those of a film, beside one another and in the order in which they are said."""
    clips, places = list(clips), {}
    moments = [Moment.of(clip, clip.start, None) for clip in clips]
    for place, moment in enumerate(moments):
        places.setdefault(place if moment.dialogue is None else moment.dialogue, place)
    firsts = [places.get(moment.dialogue, place) for place, moment in enumerate(moments)]
    order = sorted(range(len(clips)), key=lambda place: (firsts[place], moments[place].at or ()))
    return [clips[place] for place in order]


def as_said(utterances: Iterable[Utterance], clips: Iterable[Clip]) -> Iterator[Utterance]:
    """Utterances as they come, each of a table's dialogue after the earlier ones of it: files are decoded one by one
    and in order of time, which need not be the order of a dialogue. What has to wait is kept in memory.

    Args: clips: of which the utterances are.
    """
    turns: dict[str, deque[str]] = {}
    for clip in in_turn(clips):
        if clip.dialogue is not None:
            turns.setdefault(clip.dialogue, deque()).append(clip.id)
    waiting: dict[str, Utterance] = {}
    for utterance in utterances:
        if (dialogue := utterance.clip.dialogue) is None:
            yield utterance
            continue
        waiting[utterance.clip.id], turn = utterance, turns[dialogue]
        while turn and turn[0] in waiting:
            yield waiting.pop(turn.popleft())
    yield from waiting.values()  # those before which one did not come


def notes_on_dialogues(clips: Iterable[Clip], context: Context | None, model: Path) -> Iterator[str]:
    """What is to be said of utterances that are read otherwise than in the dialogues of a training. context: of the
    model that lies in this folder."""
    clips = list(clips)
    placed = [clip for clip in clips if clip.dialogue is not None]
    if not (context and context.utterances):
        if placed:
            yield f"{model} reads utterances alone, and nothing of the dialogues of {len(placed):,} of them"
        return
    films = Counter(of_film := [Moment.of(clip, None, None).dialogue for clip in clips if clip.dialogue is None])
    if alone := sum(film is None or films[film] == 1 for film in of_film):
        are, hint = ("is" if alone == 1 else "are"), "" if placed else "; -c dialogue=COLUMN names a table's"
        yield (
            f"{alone:,} utterance{'s' * (alone > 1)} {are} of no dialogue, nor of a film with others, and read without "
            f"what was said before{hint}"
        )
    yield from spelling_notes(placed, ("dialogue", "speaker"))
    if context.speakers and (unknown := sum(clip.speaker is None for clip in placed)):
        hint = "; -c speaker=COLUMN names them" if unknown == len(placed) else ""
        yield f"who speaks is not known in {unknown:,} of {len(placed):,} utterances of dialogues{hint}"

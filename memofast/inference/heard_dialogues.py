"""What is said in films and dialogues one utterance after another, as context of the next one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from memofast.data.dialogue import Telling, speaker_numbers
from memofast.data.dialogue_rows import joined, that_fit
from memofast.prepare.sources.clips import Clip

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
        file = clip.picture or clip.sound
        at = None if start is None else (start,)
        return cls(file and f"film {file}", at, clip.speaker or (None if track is None else str(track)))


@dataclass(frozen=True)
class _Heard:
    """An utterance. ids [n] int32: its words; rows: [rows, width] by modality, as far as they may be read again."""

    moment: Moment
    ids: np.ndarray
    rows: Mapping[str, np.ndarray]


@dataclass
class HeardDialogues:
    """The texts and rows of utterances that come in turn, each with what its dialogue said and showed before it; a film
    is one dialogue, where no table says otherwise."""

    telling: Telling
    _dialogues: dict[str, list[_Heard]] = field(default_factory=dict)

    def text(
        self, ids: Sequence[int], words: Sequence[int], moment: Moment
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Token ids and word ids [n] int32 of an utterance in its dialogue, as a corpus of it has them, and what is to
        be noted."""
        context, before = self.telling.context, self._before(moment)
        speakers = [one.moment.speaker for one in before] + ["" if moment.dialogue is None else moment.speaker]
        *numbers, number = speaker_numbers([speaker if context.speakers else None for speaker in speakers])
        said, first = np.array(ids, np.int32), max(len(before) - context.utterances, 0)
        parts = [np.zeros(0, np.int32)]
        for one, of in zip(before[first:], numbers[first:], strict=True):
            parts += [self.telling.mark(of), one.ids] if len(one.ids) else []
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
        context, before = self.telling.context, self._before(moment)
        nearest = before[::-1][: context.utterances]
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
        context, said = self.telling.context, self._dialogues.setdefault(moment.dialogue, [])
        kept = {name: rows[name] for name in context.rows if name in rows}
        said.append(_Heard(moment, np.array(ids, np.int32), kept))
        if len(said) > context.utterances:
            said[-context.utterances - 1] = replace(said[-context.utterances - 1], rows={})

    def _before(self, moment: Moment) -> list[_Heard]:
        """Earlier utterances of the dialogue, in their order; those that came out of turn and begin later are none."""
        there = self._dialogues.get(moment.dialogue, []) if moment.dialogue is not None else []
        if moment.at is None:
            return list(there)
        earlier = [one for one in there if one.moment.at is not None and one.moment.at <= moment.at]
        return sorted(earlier, key=lambda one: one.moment.at)


def in_turn(clips: Iterable[Clip]) -> list[Clip]:
    """Clips of a dialogue, and those of a film, beside one another and in the order in which they are said."""
    clips, places = list(clips), {}
    moments = [Moment.of(clip, clip.start, None) for clip in clips]
    for place, moment in enumerate(moments):
        places.setdefault(place if moment.dialogue is None else moment.dialogue, place)
    firsts = [places.get(moment.dialogue, place) for place, moment in enumerate(moments)]
    order = sorted(range(len(clips)), key=lambda place: (firsts[place], moments[place].at or ()))
    return [clips[place] for place in order]

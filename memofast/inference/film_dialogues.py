"""What is said in films one utterance after another, as context of the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from memofast.data.dialogue import Telling, speaker_numbers
from memofast.data.dialogue_rows import joined, that_fit

_UNKNOWN = "who speaks is not known, so that the speaker has no number"


@dataclass(frozen=True)
class Moment:
    """Where something is said. file: of the film; None: by itself. start: seconds; track: number of the person who
    speaks; None where unknown."""

    file: str | None = None
    start: float | None = None
    track: int | None = None


@dataclass(frozen=True)
class _Heard:
    """An utterance. ids [n] int32: its words; rows: [rows, width] by modality, as far as they may be read again."""

    moment: Moment
    ids: np.ndarray
    rows: Mapping[str, np.ndarray]


@dataclass
class FilmDialogues:
    """The texts and rows of utterances that come in turn, each with what its film said and showed before it; a film is
    one dialogue."""

    telling: Telling
    _films: dict[str, list[_Heard]] = field(default_factory=dict)

    def text(
        self, ids: Sequence[int], words: Sequence[int], moment: Moment
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Token ids and word ids [n] int32 of an utterance in its film, as a corpus of that dialogue has them, and what
        is to be noted."""
        context, before = self.telling.context, self._before(moment)
        tracks = [one.moment.track for one in before] + [1 if moment.file is None else moment.track]
        known = context.speakers
        *numbers, number = speaker_numbers([None if track is None or not known else str(track) for track in tracks])
        said, first = np.array(ids, np.int32), max(len(before) - context.utterances, 0)
        parts = [np.zeros(0, np.int32)]
        for one, of in zip(before[first:], numbers[first:], strict=True):
            parts += [self.telling.mark(of), one.ids] if len(one.ids) else []
        earlier = np.concatenate(parts)
        alone = self.telling.alone(np.array([len(said)]), [number])
        (kept,), _ = self.telling.room(alone, np.array([len(earlier)]), np.array([0]))
        tokens, at = self.telling.text(earlier[len(earlier) - kept :], said, earlier[:0], number)
        placed = np.full(len(tokens), -1, np.int32)
        placed[at : at + len(said)] = words
        return tokens, placed, (_UNKNOWN,) if known and number is None else ()

    def rows(self, own: Mapping[str, np.ndarray], moment: Moment) -> dict[str, np.ndarray]:
        """Rows of an utterance in its film, by modality, as a corpus of that dialogue has them."""
        context, before = self.telling.context, self._before(moment)
        nearest = before[::-1][: context.utterances]
        found = dict(own)
        for modality, most in context.rows.items():
            if modality in own:
                others = [one.rows.get(modality, own[modality][:0]) for one in nearest]
                kept, _ = that_fit(len(own[modality]), [len(rows) for rows in others], (), most)
                found[modality] = joined(own[modality], others[:kept])
        return found

    def hear(self, ids: Sequence[int], moment: Moment, rows: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """Take an utterance, with or without words, into its film. rows: its own, by modality; they are kept of the
        last ones that are heard, as many as are read."""
        if moment.file is None:
            return
        context, film = self.telling.context, self._films.setdefault(moment.file, [])
        kept = {name: rows[name] for name in context.rows if name in rows}
        film.append(_Heard(moment, np.array(ids, np.int32), kept))
        if len(film) > context.utterances:
            film[-context.utterances - 1] = replace(film[-context.utterances - 1], rows={})

    def _before(self, moment: Moment) -> list[_Heard]:
        """Earlier utterances of the film, in the order of time; those that came out of turn and begin later are
        none."""
        there = self._films.get(moment.file, []) if moment.file is not None else []
        if moment.start is None:
            return list(there)
        earlier = [one for one in there if one.moment.start is not None and one.moment.start <= moment.start]
        return sorted(earlier, key=lambda one: one.moment.start)

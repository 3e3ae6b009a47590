"""What is said in films one utterance after another, as context of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from memofast.data.dialogue import Telling, speaker_numbers

_UNKNOWN = "who speaks is not known, so that the speaker has no number"


@dataclass(frozen=True)
class Moment:
    """Where something is said. file: of the film; None: by itself. start: seconds; track: number of the person who
    speaks; None where unknown."""

    file: str | None = None
    start: float | None = None
    track: int | None = None


@dataclass
class FilmDialogues:
    """The texts of utterances that come in turn, each with what its film said before it; a film is one dialogue."""

    telling: Telling
    _films: dict[str, list[tuple[Moment, np.ndarray]]] = field(default_factory=dict)

    def text(
        self, ids: Sequence[int], words: Sequence[int], moment: Moment
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Token ids and word ids [n] int32 of an utterance in its film, as a corpus of that dialogue has them, and what
        is to be noted."""
        context, before = self.telling.context, self._before(moment)
        tracks = [one.track for one, _ in before] + [1 if moment.file is None else moment.track]
        known = context.speakers
        *numbers, number = speaker_numbers([None if track is None or not known else str(track) for track in tracks])
        said, first = np.array(ids, np.int32), max(len(before) - context.utterances, 0)
        parts = [np.zeros(0, np.int32)]
        for (_, own), of in zip(before[first:], numbers[first:], strict=True):
            parts += [self.telling.mark(of), own] if len(own) else []
        joined = np.concatenate(parts)
        alone = self.telling.alone(np.array([len(said)]), [number])
        (kept,), _ = self.telling.room(alone, np.array([len(joined)]), np.array([0]))
        tokens, at = self.telling.text(joined[len(joined) - kept :], said, joined[:0], number)
        placed = np.full(len(tokens), -1, np.int32)
        placed[at : at + len(said)] = words
        return tokens, placed, (_UNKNOWN,) if known and number is None else ()

    def hear(self, ids: Sequence[int], moment: Moment) -> None:
        """Take an utterance, with or without words, into its film."""
        if moment.file is not None:
            self._films.setdefault(moment.file, []).append((moment, np.array(ids, np.int32)))

    def _before(self, moment: Moment) -> list[tuple[Moment, np.ndarray]]:
        """Earlier utterances of the film, in the order of time; those that came out of turn and begin later are
        none."""
        there = self._films.get(moment.file, []) if moment.file is not None else []
        if moment.start is None:
            return list(there)
        earlier = [one for one in there if one[0].start is not None and one[0].start <= moment.start]
        return sorted(earlier, key=lambda one: one[0].start)

"""Films decoded once, utterance by utterance, by the extraction of `memofast prepare`; beside the rows the faces of everybody seen are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from memofast.prepare.faces.tracks import SAME_PERSON, Track, correlation, mean_crop
from memofast.prepare.media.decoding import Excerpt
from memofast.prepare.run.extraction import Extracted, Extraction, by_file
from memofast.prepare.run.report import REASONS, Problem
from memofast.prepare.sources.clips import Clip

_A_SECOND, _LEAST, _MOST = 2.5, 6, 24  # crops of an utterance that are kept


@dataclass(frozen=True)
class Shown:
    """One person during an utterance. times [n] seconds in the file and crops [64, 64] uint8, equally spaced; track: their number; rows [n, width]
    float32 of the face, None of who speaks, whose rows are the utterance's."""

    times: list[float]
    crops: list[np.ndarray]
    track: int
    rows: np.ndarray | None = None


@dataclass
class Utterance:
    """What was extracted of a clip, the person whose face was taken, and others who are seen in at least a fifth of it."""

    extracted: Extracted
    shown: Shown | None = None
    others: list[Shown] = field(default_factory=list)

    @property
    def clip(self) -> Clip:
        return self.extracted.clip

    @property
    def track(self) -> int | None:
        return self.shown.track if self.shown else None

    @property
    def times(self) -> tuple[float | None, float | None]:
        """Start and end of what was used, in seconds from the start of the file."""
        start, end = self.clip.start, self.clip.end
        if self.extracted.span and self.extracted.seconds is not None:
            start = self.extracted.span.start
            end = min(self.extracted.span.end, start + self.extracted.seconds)
        return start, end

    @property
    def notes(self) -> list[str]:
        """What was missing or odd, in words."""
        known, _, detail = (self.clip.problem or "").partition(": ")
        problems = [Problem(known, detail)] if known else []
        return [_told(problem) for problem in problems + self.extracted.problems]


def _told(problem: Problem) -> str:
    if problem.reason == "failed":
        return problem.detail
    return (
        f"{problem.reason} ({problem.detail})"
        if problem.detail
        else f"{problem.reason}: {REASONS.get(problem.reason, '')}"
    )


@dataclass
class People:
    """The persons of one file, numbered from 1 in the order of their first utterance, known again by the mean of their crops."""

    known: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def numbers(self, persons: Sequence[Track]) -> list[int]:
        """The numbers of persons seen together, which are different ones."""
        found: list[int] = []
        for person in persons:
            found.append(self._number(person, found))
        return found

    def _number(self, person: Track, taken: Sequence[int]) -> int:
        mean, faces = mean_crop(person), len(person.faces)
        alike = [
            -1.0 if number in taken else correlation(mean, crop) for number, (crop, _) in enumerate(self.known, start=1)
        ]
        if max(alike, default=-1.0) < SAME_PERSON:
            self.known.append((mean, faces))
            return len(self.known)
        place = int(np.argmax(alike))
        crop, before = self.known[place]
        self.known[place] = (crop * before + mean * faces) / (before + faces), before + faces
        return place + 1


class Watching(Extraction):
    """The extraction, which remembers who was seen and whose face it took."""

    def utterances(self, clips: Sequence[Clip], others: bool = False) -> Iterator[Utterance]:
        """Clips of each file in order of time, file by file; those with a problem known before are handed on as they are.

        others: look also at those who are seen beside the one whose face is taken.
        """
        playable = []
        for clip in clips:
            if clip.problem or not (clip.picture or clip.sound):
                yield Utterance(Extracted(clip))
            else:
                playable.append(clip)
        for file in by_file(playable):
            self._people, self._seen, self._see_others = People(), {}, others
            for extracted in self(file):
                shown, rest = self._seen.pop(extracted.clip.id, (None, []))
                yield Utterance(extracted, shown, rest)

    def _speaker(
        self, persons: list[Track], extracted: Extracted, excerpt: Excerpt, spoken: np.ndarray | None
    ) -> Track | None:
        speaker = super()._speaker(persons, extracted, excerpt, spoken)
        others = [person for person in persons if person is not speaker]
        everybody = [speaker, *others] if speaker else others
        numbers = dict(zip(everybody, self._people.numbers(everybody), strict=True))
        rest = [
            self._shown(person, numbers[person], extracted, excerpt, self._face_rows(person, excerpt).rows)
            for person in (others if self._see_others else [])
        ]
        shown = self._shown(speaker, numbers[speaker], extracted, excerpt) if speaker else None
        self._seen[extracted.clip.id] = shown, rest
        return speaker

    def _shown(
        self, person: Track, number: int, extracted: Extracted, excerpt: Excerpt, rows: np.ndarray | None = None
    ) -> Shown:
        start, count = extracted.span.start, int(np.clip(_A_SECOND * extracted.seconds, _LEAST, _MOST))
        chosen = np.unique(np.linspace(0, len(person.frames) - 1, count).round().astype(int))
        times = [start + excerpt.times[person.frames[i]] for i in chosen]
        crops = [person.faces[i].crop for i in chosen]
        return Shown(times, crops, number, rows)

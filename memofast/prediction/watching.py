"""Films decoded once, utterance by utterance, by the extraction of `memofast prepare`; beside the rows the faces they came from are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from memofast.prepare.decoding import Excerpt
from memofast.prepare.extraction import Extracted, Extraction, by_file
from memofast.prepare.report import REASONS, Problem
from memofast.prepare.sources import Clip
from memofast.prepare.tracks import SAME_PERSON, Track, correlation, mean_crop

_A_SECOND, _LEAST, _MOST = 2.5, 6, 24  # crops of an utterance that are kept


@dataclass(frozen=True)
class Shown:
    """Of one utterance: times [n] seconds in the file and crops [64, 64] uint8, equally spaced, of the person whose face was taken; track: their number."""

    times: list[float]
    crops: list[np.ndarray]
    track: int


@dataclass
class Utterance:
    """What was extracted of a clip, and the face that was taken."""

    extracted: Extracted
    shown: Shown | None = None

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

    def number(self, person: Track) -> int:
        mean, faces = mean_crop(person), len(person.faces)
        alike = [correlation(mean, crop) for crop, _ in self.known]
        if not alike or max(alike) < SAME_PERSON:
            self.known.append((mean, faces))
            return len(self.known)
        place = int(np.argmax(alike))
        crop, before = self.known[place]
        self.known[place] = (crop * before + mean * faces) / (before + faces), before + faces
        return place + 1


class Watching(Extraction):
    """The extraction, which remembers whose face it took."""

    def utterances(self, clips: Sequence[Clip]) -> Iterator[Utterance]:
        """Clips of each file in order of time, file by file; those with a problem known before are handed on as they are."""
        playable = []
        for clip in clips:
            if clip.problem or not (clip.picture or clip.sound):
                yield Utterance(Extracted(clip))
            else:
                playable.append(clip)
        for file in by_file(playable):
            self._people, self._shown = People(), {}
            for extracted in self(file):
                yield Utterance(extracted, self._shown.pop(extracted.clip.id, None))

    def _main_person(self, extracted: Extracted, excerpt: Excerpt, spoken: np.ndarray | None) -> Track | None:
        person = super()._main_person(extracted, excerpt, spoken)
        if person is not None:
            start, count = extracted.span.start, int(np.clip(_A_SECOND * extracted.seconds, _LEAST, _MOST))
            chosen = np.unique(np.linspace(0, len(person.frames) - 1, count).round().astype(int))
            times = [start + excerpt.times[person.frames[i]] for i in chosen]
            crops = [person.faces[i].crop for i in chosen]
            self._shown[extracted.clip.id] = Shown(times, crops, self._people.number(person))
        return person

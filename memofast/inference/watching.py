"""Films decoded once, utterance by utterance, by the extraction of `memofast prepare`; beside the rows the faces of
everybody seen are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from memofast.prepare.faces.tracks import SAME_PERSON, Track, correlation, mean_crop
from memofast.prepare.run.extraction import Extracted, Extraction, Person, by_file
from memofast.prepare.run.report import REASONS, Problem
from memofast.prepare.sources.clips import Clip

_A_SECOND, _LEAST, _MOST = 2.5, 6, 24  # crops of an utterance that are kept


@dataclass(frozen=True)
class Shown:
    """One person during an utterance. times [n] seconds in the file and crops [64, 64] uint8, equally spaced; track:
    their number; rows [n, width] float32 of the face, None of who speaks, whose rows are the utterance's."""

    times: list[float]
    crops: list[np.ndarray]
    track: int
    rows: np.ndarray | None = None


@dataclass
class Utterance:
    """What was extracted of a clip, the person whose face was taken, and others who are seen in at least a fifth of
    it."""

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
        streams = [self.extracted.streams] if self.extracted.streams else []
        return [_told(problem) for problem in problems + self.extracted.problems] + streams


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
    """The persons of one file, numbered from 1 in the order of their first utterance, known again by the mean of their
    crops."""

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


def watch(extraction: Extraction, clips: Sequence[Clip], others: bool = False) -> Iterator[Utterance]:
    """Clips of each file in order of time, file by file, each file where its first clip stands; those of no file, or
    with a problem known before, are handed on as they are.

    others: rows are made also of those who are seen beside the one whose face is taken.
    """
    files = {file[0].id: file for file in by_file(clip for clip in clips if not clip.problem)}
    for clip in clips:
        if clip.problem or not (clip.picture or clip.sound):
            yield Utterance(Extracted(clip))
        elif file := files.get(clip.id):
            people = People()
            for extracted in extraction(file, everybody=others):
                yield _utterance(extracted, people, others)


def _utterance(extracted: Extracted, people: People, others: bool) -> Utterance:
    """What is kept of a clip: of everybody who was seen a few crops, for all of them together fill the memory."""
    everybody = [*([extracted.person] if extracted.person else []), *extracted.others]
    numbers = people.numbers([person.track for person in everybody])
    shown = [
        _shown(person, number, extracted)
        for person, number in zip(everybody, numbers, strict=True)
        if others or person is extracted.person
    ]
    taken = shown.pop(0) if extracted.person else None
    return Utterance(replace(extracted, person=None, others=[]), taken, shown)


def _shown(person: Person, number: int, extracted: Extracted) -> Shown:
    """rows: those of the person whose face was taken are the utterance's own."""
    count = int(np.clip(_A_SECOND * extracted.seconds, _LEAST, _MOST))
    chosen = np.unique(np.linspace(0, len(person.times) - 1, count).round().astype(int))
    times = [extracted.span.start + person.times[i] for i in chosen]
    crops = [person.track.faces[i].crop for i in chosen]
    return Shown(times, crops, number, None if person is extracted.person else person.rows.rows)

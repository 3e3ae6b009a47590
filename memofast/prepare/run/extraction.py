"""From the clips of one media file to their face and speech rows, in one decoding pass."""

import math
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from memofast.errors import MemofastError
from memofast.prepare.faces.detection import find_faces
from memofast.prepare.faces.extractors import FaceChoice, open_face
from memofast.prepare.faces.mouths import MouthWatch
from memofast.prepare.faces.speaking import Scores, active_speaker
from memofast.prepare.faces.tracks import Seen, Track, main_persons, thumbnail
from memofast.prepare.faces.whole_frames import RATE, WholeFrames, evenly_timed
from memofast.prepare.media.decoding import FRAMES_PER_SECOND, Frame, decode
from memofast.prepare.media.excerpts import SAMPLE_RATE, Excerpt, MediaPointer, Span, UnreadableMedia
from memofast.prepare.media.streams import ANY_STREAM, QUIET, StreamChoice
from memofast.prepare.run.lengths import length_problems, seconds_of
from memofast.prepare.run.report import Problem
from memofast.prepare.run.stopwatch import Stopwatch
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.beginning import first_speech, speech_after
from memofast.prepare.speech.extractors import SpeechChoice, open_speech
from memofast.prepare.speech.raw import beyond_16_bits
from memofast.prepare.speech.rows import SHORTEST
from memofast.prepare.speech.voice import EnergyVoice, open_voice
from memofast.prepare.subtitles.offset import FEWEST_CUES, estimate_offset
from memofast.prepare.subtitles.timings import Cue

_WINDOW = 60.0  # seconds of sound in memory while a film's subtitles are checked


@dataclass(frozen=True)
class ExtractionOptions:
    """face None: no faces. max_seconds: what a clip holds beyond is cut. voice: a kind of voice activity, or `none`.

    speaker: whose face is taken, `active` (who speaks) or `most-seen`. device: of models, `cpu` or `cuda`. keep_sound:
    what is extracted carries the sound that was heard. streams: which tracks of a file are read.
    """

    face: FaceChoice | None
    yunet: Path | None
    speech: SpeechChoice
    max_seconds: float
    voice: str = "none"
    speaker: str = "most-seen"
    device: str = "cpu"
    keep_sound: bool = False
    streams: StreamChoice = ANY_STREAM


@dataclass
class FaceRows:
    """rows [n, width], soft_labels [n, classes] (None without classes), confidence [n], times [n] seconds from the
    clip's start, all float32; raw rows are uint8."""

    rows: np.ndarray
    soft_labels: np.ndarray | None
    confidence: np.ndarray
    times: np.ndarray


@dataclass
class SoundRows:
    """rows [n, width], times [n] seconds at the middle of what a row covers, both float32; raw rows are int16."""

    rows: np.ndarray
    times: np.ndarray


@dataclass(eq=False)
class Person:
    """Somebody who is visible in a clip. times: of each of their faces, in seconds from the clip's start. rows: None
    where none were made of them."""

    track: Track
    times: list[float]
    rows: FaceRows | None = None


@dataclass
class Heard:
    """wave [samples] float32 at 16 kHz; activity [n] bool, whether somebody speaks, every `hop` seconds, None where
    nobody looked."""

    wave: np.ndarray
    activity: np.ndarray | None
    hop: float


@dataclass
class Extracted:
    """What one clip gave, None for a modality without rows, and why. spoken: share of its sound in which somebody
    speaks, None where nobody looked.

    speaker: scores of the person whose face was taken, where who speaks was asked. span, seconds: the piece of its
    files that was used, and how long what it holds is; None where nothing was decoded. person: whose face was taken;
    others: who else is seen in at least a fifth of the clip. heard: where `keep_sound` asked for it and there is sound.
    streams: which tracks of its files were read, where that is not plain.
    """

    clip: Clip
    faces: FaceRows | None = None
    sound: SoundRows | None = None
    spoken: float | None = None
    speaker: Scores | None = None
    problems: list[Problem] = field(default_factory=list)
    span: Span | None = None
    seconds: float | None = None
    person: Person | None = None
    others: list[Person] = field(default_factory=list)
    heard: Heard | None = None
    streams: str = ""


@dataclass(frozen=True)
class _File:
    """What all clips of one file share. clips: moved to where their subtitles belong; problems: what is to be said
    about that; speech: voice activity of the whole file, None where it was not looked for; everybody: rows are made of
    everybody who is seen."""

    clips: list[Clip]
    problems: list[Problem]
    speech: np.ndarray | None
    everybody: bool


class Extraction:
    """The extractors of one process, opened once. One thread: files are spread over processes, and rows do not depend
    on how many."""

    def __init__(self, options: ExtractionOptions):
        self.options = options
        self.face = open_face(options.face, options.device) if options.face else None
        self.whole = self.face if isinstance(self.face, WholeFrames) else None
        finds = self.face is not None and self.whole is None
        self.finder = find_faces(options.yunet, self.face.colour, self.face.side) if finds else None
        self.speech = open_speech(options.speech, options.device)
        self.voice = None if options.voice == "none" else open_voice(options.voice)
        self.mouths = MouthWatch() if self.finder and options.speaker == "active" else None
        self.hears = self.speech is not None or self.voice is not None or options.keep_sound
        self.watch = Stopwatch()

    def __call__(self, clips: list[Clip], done: Container[str] = (), everybody: bool = False) -> Iterator[Extracted]:
        """Rows of the clips of one file (all with the same picture and sound), one by one, those whose id is in `done`
        left out.

        everybody: rows are made of everybody who is seen, not of the person alone whose face is taken. Whatever goes
        wrong becomes a problem of the clips that were still to come, and never ends the run.
        """
        left = {clip.id: clip for clip in clips if clip.id not in done}
        try:
            with one_thread():
                file = _File(*self._aligned(clips), everybody)
                wanted = [clip for clip in file.clips if clip.id in left]
                for clip, excerpt in self.watch.timed("decoding", self._excerpts(wanted)):
                    clip, excerpt = self._where_somebody_speaks(clip, excerpt)
                    del left[clip.id]
                    yield self._guarded(clip, excerpt, file)
        except Exception as error:
            for clip in left.values():
                yield Extracted(clip, problems=[_failure(error, clip)])

    def _guarded(self, clip: Clip, excerpt: Excerpt, file: _File) -> Extracted:
        try:
            extracted = self._rows(clip, excerpt, file)
        except Exception as error:
            return Extracted(clip, problems=[_failure(error, clip)])
        extracted.problems += file.problems
        return extracted

    def _aligned(self, clips: list[Clip]) -> tuple[list[Clip], list[Problem], np.ndarray | None]:
        """The clips of a film moved to where somebody speaks, if their subtitles lie elsewhere; what is to be said
        about it; voice activity of the film where it was looked for."""
        cues = [Cue(clip.start, clip.end, clip.text) for clip in clips if clip.subtitled]
        if self.voice is None or len(cues) < FEWEST_CUES or clips[0].sound is None:
            return clips, [], None
        with self.watch("checking subtitles"):
            speech = self._speech_in(clips[0].sound, max(cue.end for cue in cues))
            offset = estimate_offset(cues, speech, self.voice.hop)
        if offset is None or (offset.fits and not offset.moves):
            return clips, [], speech
        told = (
            f"correlation with speech {offset.before:.2f}, {offset.correlation:.2f} when moved by "
            f"{offset.seconds:+.2f} s"
        )
        if not offset.fits or self.voice.name == EnergyVoice.name:  # which takes music for speech
            return clips, [Problem("doubtful subtitles", told)], speech
        clips = [
            replace(clip, start=max(0.0, clip.start + offset.seconds), end=max(0.0, clip.end + offset.seconds))
            for clip in clips
        ]
        return clips, [Problem("subtitles moved", told)], speech

    def _speech_in(self, file: Path, last: float) -> np.ndarray:
        """Voice activity of a file to a minute after `last` seconds, window by window."""
        windows = [Span(start, start + _WINDOW) for start in np.arange(0.0, last + _WINDOW, _WINDOW)]
        speech = np.zeros(round((last + 2 * _WINDOW) / self.voice.hop), bool)
        for index, excerpt in decode(file, windows, see=None, streams=self.options.streams):
            if excerpt.sound is not None:
                found = self.voice(excerpt.sound)
                first = round(windows[index].start / self.voice.hop)
                speech[first : first + len(found)] = found
        return speech

    def _excerpts(self, clips: list[Clip]) -> Iterator[tuple[Clip, Excerpt]]:
        spans = [self._span(clip) for clip in clips]
        picture, sound = clips[0].picture, clips[0].sound
        see = (self._look if self.finder else self._frame if self.whole else None) if picture else None
        looks = {"see": see, "glance": self._glance if see and self.mouths else None}
        looks["frame_rate"] = RATE if self.whole else FRAMES_PER_SECOND
        fine = self.options.speech.rate
        rates = {"fine_rate": None if fine == SAMPLE_RATE else fine}
        streams = self.options.streams
        if picture == sound or see is None or not self.hears:
            file = picture if see and picture else sound
            for index, excerpt in decode(file, spans, **looks, sound=self.hears, streams=streams, **rates):
                yield clips[index], excerpt
            return
        heard = dict(decode(sound, spans, see=None, streams=streams, **rates)) if sound else {}
        for index, excerpt in decode(picture, spans, **looks, sound=False, streams=streams):
            if index in heard:
                _add_heard(excerpt, heard[index])
            yield clips[index], excerpt

    def _where_somebody_speaks(self, clip: Clip, excerpt: Excerpt) -> tuple[Clip, Excerpt]:
        """A whole file that is cut, from where somebody speaks if nobody does in what would be used of it."""
        whole = clip.start is None and clip.end is None and excerpt.goes_on and excerpt.sound is not None
        if not whole or first_speech(excerpt.sound, self.voice) is not None:
            return clip, excerpt
        with self.watch("looking for speech"):
            begin = speech_after(clip.sound, self.options.max_seconds, self.voice, self.options.streams)
        if begin is None:
            return clip, excerpt
        ((clip, excerpt),) = self._excerpts([replace(clip, start=begin)])
        excerpt.skipped = begin
        return clip, excerpt

    def _look(self, frame: Frame) -> Seen:
        with self.watch("finding faces"):
            picture = frame.picture()
            seen = Seen(self.finder(picture), thumbnail(picture))
        if self.mouths:
            with self.watch("watching mouths"):
                self.mouths.see(seen.faces, frame.grey(), frame.time)
        return seen

    def _frame(self, frame: Frame) -> np.ndarray:
        with self.watch("scaling pictures"):
            return self.whole.look(frame.picture())

    def _glance(self, frame: Frame) -> None:
        with self.watch("watching mouths"):
            self.mouths.glance(frame.grey(), frame.time)

    def _span(self, clip: Clip) -> Span:
        start = clip.start or 0.0
        end = math.inf if clip.end is None else clip.end
        return Span(start, min(end, start + self.options.max_seconds))

    def _rows(self, clip: Clip, excerpt: Excerpt, file: _File) -> Extracted:
        span = self._span(clip)
        extracted = Extracted(clip, span=span, seconds=seconds_of(excerpt), streams=excerpt.streams)
        self.watch.media += extracted.seconds or 0.0
        if not excerpt.complete:
            why = f": {excerpt.missing}" if excerpt.missing else ""
            extracted.problems.append(Problem("damaged", f"{clip.picture or clip.sound} breaks off or is damaged{why}"))
        extracted.problems += [Problem(reason, f"{detail}, in {clip.sound}") for reason, detail in excerpt.notes]
        extracted.problems += length_problems(clip, span, excerpt, self.options.max_seconds)
        spoken = None
        if self.voice and excerpt.sound is not None:
            spoken = self._spoken(clip, excerpt.sound, file.speech)
            extracted.spoken = float(spoken.mean()) if len(spoken) else None
        if self.options.keep_sound and excerpt.sound is not None:
            extracted.heard = Heard(excerpt.sound, spoken, self.voice.hop if self.voice else 0.0)
        if self.whole and clip.picture:
            self._add_frames(extracted, excerpt)
        elif self.face and clip.picture:
            self._add_faces(extracted, excerpt, spoken, file.everybody)
        if self.speech and clip.sound:
            self._add_sound(extracted, excerpt)
        return extracted

    def _spoken(self, clip: Clip, sound: np.ndarray, speech: np.ndarray | None) -> np.ndarray:
        """Voice activity of a clip: its part of that of the film, where that is known."""
        if speech is not None:
            first = round((clip.start or 0.0) / self.voice.hop)
            return speech[first : first + round(len(sound) / SAMPLE_RATE / self.voice.hop)]
        with self.watch("voice activity"):
            return self.voice(sound)

    def _add_faces(self, extracted: Extracted, excerpt: Excerpt, spoken: np.ndarray | None, everybody: bool) -> None:
        """Who is seen, and the rows of the person whose face is taken; where nobody's is, the problem is noted."""
        where = str(extracted.clip.picture)
        if not any(shown.faces for shown in excerpt.seen):
            extracted.problems.append(Problem("no face" if excerpt.seen else "no picture", where))
            return
        with self.watch("tracking faces"):
            persons = main_persons(excerpt.seen)
        if not persons:
            extracted.problems.append(Problem("no main face", where))
            return
        taken = self._speaker(persons, extracted, excerpt, spoken)
        for track in persons:
            person = Person(track, [excerpt.times[frame] for frame in track.frames])
            if track is taken or everybody:
                person.rows = self._face_rows(person)
            if track is taken:
                extracted.person, extracted.faces = person, person.rows
            else:
                extracted.others.append(person)
        if taken is None:
            extracted.problems.append(Problem("nobody visible speaks", where))

    def _add_frames(self, extracted: Extracted, excerpt: Excerpt) -> None:
        """Whole pictures, each 25th of a second the one that is seen then."""
        if not excerpt.seen:
            extracted.problems.append(Problem("no picture", str(extracted.clip.picture)))
            return
        shown = evenly_timed(excerpt.times, excerpt.picture_end or 0.0)
        rows = np.stack([excerpt.seen[place].reshape(-1) for place in shown])
        times = ((np.arange(len(shown)) + 0.5) / RATE).astype(np.float32)
        extracted.faces = FaceRows(rows, None, np.ones(len(shown), np.float32), times)

    def _face_rows(self, person: Person) -> FaceRows:
        faces = person.track.faces
        with self.watch("face features"):
            rows, soft_labels = self.face(faces)
        confidence = np.array([face.confidence for face in faces], np.float32)
        return FaceRows(rows, soft_labels, confidence, np.array(person.times, np.float32))

    def _speaker(
        self, persons: list[Track], extracted: Extracted, excerpt: Excerpt, spoken: np.ndarray | None
    ) -> Track | None:
        """The one of the visible persons whose face is taken, None where who speaks was asked and nobody does."""
        if not self.mouths or excerpt.sound is None:
            return persons[0]
        with self.watch("finding the speaker"):
            hop = self.voice.hop if self.voice else 1.0
            person, extracted.speaker = active_speaker(persons, self._span(extracted.clip), excerpt.sound, spoken, hop)
        return person

    def _add_sound(self, extracted: Extracted, excerpt: Excerpt) -> None:
        sound = excerpt.sound if excerpt.fine is None else excerpt.fine
        where = str(extracted.clip.sound)
        if sound is None:
            extracted.problems.append(Problem("no sound track", where))
        elif len(excerpt.sound) < SHORTEST:
            extracted.problems.append(Problem("too short", f"{len(sound)} samples of sound in {where}"))
        elif np.abs(sound).max() < QUIET:
            extracted.problems.append(Problem("silent", where))
        else:
            if self.options.speech.kind == "raw" and (clipped := beyond_16_bits(sound)):
                extracted.problems.append(Problem("clipped", f"{clipped:,} of {len(sound):,} samples, in {where}"))
            with self.watch("speech features"):
                frames = self.speech(sound)
                rows = self.options.speech.rows(frames)
            times = self.options.speech.times(len(frames), self.speech.hop, self.speech.window)
            extracted.sound = SoundRows(rows, times)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _failure(error: Exception, clip: Clip) -> Problem:
    if isinstance(error, UnreadableMedia):
        return Problem("pointer" if isinstance(error, MediaPointer) else "unreadable", str(error))
    if isinstance(error, MemofastError):
        return Problem("failed", str(error))
    return Problem("failed", f"{clip.picture or clip.sound}: {type(error).__name__}: {error}")


def _add_heard(excerpt: Excerpt, heard: Excerpt) -> None:
    """Sound of a file of its own, beside the picture."""
    excerpt.sound, excerpt.fine, excerpt.read = heard.sound, heard.fine, excerpt.read or heard.read
    excerpt.complete &= heard.complete
    excerpt.missing = excerpt.missing or heard.missing
    excerpt.goes_on |= heard.goes_on
    excerpt.notes += heard.notes
    excerpt.streams = "; ".join(filter(None, (excerpt.streams, heard.streams)))


def by_file(clips: Iterable[Clip]) -> list[list[Clip]]:
    """Clips grouped by the media they are cut from; those without media are left out."""
    groups: dict[tuple, list[Clip]] = {}
    for clip in clips:
        if clip.picture or clip.sound:
            groups.setdefault((clip.picture, clip.sound), []).append(clip)
    return list(groups.values())

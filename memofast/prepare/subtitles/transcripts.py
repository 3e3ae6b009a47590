"""Sentences by speech recognition, for media without text: one transcript per file, with the time of every word.

Transcripts lie in the corpus folder, one JSON file each, so that an interrupted run does not hear a film twice and a
person can read them.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from memofast.errors import MemofastError
from memofast.files import write_json
from memofast.model.folder import refuse_untrusted
from memofast.prepare.choices import Kind, parse_choice
from memofast.prepare.media.decoding import decode
from memofast.prepare.media.excerpts import SAMPLE_RATE, Span, UnreadableMedia
from memofast.prepare.media.streams import ANY_STREAM, StreamChoice
from memofast.prepare.sources.clips import Clip, sentence_clips
from memofast.prepare.subtitles.sentences import SentenceRules, sentences_of
from memofast.prepare.subtitles.timings import Cue
from memofast.prepare.text.text_log import tell_file

KINDS = {"faster-whisper": Kind("FOLDER", {"language": "a code such as en; default: by ear", "beam": "hypotheses, 5"})}
TRANSCRIPTS = "transcripts"
_DECODED = 30.0  # seconds at a time
_HEARD = 300.0  # seconds that the recogniser is given at once
_SEARCHED = 20.0  # seconds at the end of those in which the quietest place to cut is looked for
_NAMED = 200  # bytes of a file's name that its transcript's begins with
_QUIET = 0.2  # seconds over which loudness is judged there


@dataclass(frozen=True)
class AsrChoice:
    """folder: of a CTranslate2 Whisper model. language: None by ear."""

    folder: Path
    language: str | None = None
    beam: int = 5


def parse_asr(text: str) -> AsrChoice:
    """`faster-whisper=FOLDER[,language=en][,beam=5]`; raises MemofastError."""
    _, folder, settings = parse_choice(text, "--asr", KINDS)
    beam = settings.get("beam", "5")
    if not (beam.isdigit() and int(beam) > 0):
        raise MemofastError(f"--asr beam is a number from 1, not {beam!r}")
    return AsrChoice(folder, settings.get("language"), int(beam))


@dataclass(frozen=True)
class Word:
    """One word as it was heard, in seconds from the start of its file."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class Transcript:
    """All words of a file, by segment; seconds: how long its sound is."""

    seconds: float
    segments: list[list[Word]]


class Recogniser:
    """faster-whisper on the CPU or a GPU, greedy in temperature, so that the same sound gives the same words."""

    def __init__(self, choice: AsrChoice, device: str = "cpu", threads: int = 0):
        try:
            from faster_whisper import WhisperModel
        except ImportError:
            raise MemofastError(
                '--asr needs faster-whisper, which is not installed: pip install "memofast[asr]"'
            ) from None
        needed = [choice.folder / name for name in ("model.bin", "config.json", "tokenizer.json")]
        if missing := next((path for path in needed if not path.is_file()), None):
            raise MemofastError(
                f"no {missing.name} in {choice.folder}; --asr needs the folder of a faster-whisper model"
            )
        refuse_untrusted(choice.folder)
        try:
            exact = "float32" if device == "cpu" else "float16"
            self._model = WhisperModel(
                str(choice.folder), device=device, compute_type=exact, cpu_threads=threads, local_files_only=True
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise MemofastError(f"{choice.folder} is not a faster-whisper model ({error}); fetch it again") from error
        self._choice = choice

    def __call__(self, sound: np.ndarray, start: float) -> list[list[Word]]:
        """Segments of words of sound [samples] float32 at 16 kHz that begins at `start` seconds."""
        segments, _ = self._model.transcribe(
            sound,
            language=self._choice.language,
            beam_size=self._choice.beam,
            temperature=0.0,
            word_timestamps=True,
            condition_on_previous_text=False,
        )
        heard = [
            [Word(round(start + w.start, 3), round(start + w.end, 3), w.word, round(w.probability, 4)) for w in s.words]
            for s in segments
        ]
        return [segment for segment in heard if segment]


def add_transcripts(
    clips: list[Clip],
    out: Path,
    choice: AsrChoice,
    rules: SentenceRules,
    console: Console,
    *,
    device: str = "cpu",
    threads: int = 0,
    streams: StreamChoice = ANY_STREAM,
) -> list[Clip]:
    """The clips, those of files with sound and without any text replaced by what is said in them.

    A clip with times of its own, and a whole file no longer than a sentence may be, gets the words inside. A longer
    file is cut into the sentences of its transcript, as subtitles would cut it. Where nobody says anything the clip
    stays as it is. Files that do not open are left to the preparation, which reports them.
    """
    files = {clip.sound for clip in clips if clip.text} - {None}
    silent = sorted({clip.sound for clip in clips if clip.sound and clip.sound not in files and not clip.problem})
    if not silent:
        return clips
    recogniser = None
    heard: dict[Path, Transcript] = {}
    for file in track(silent, "listening", console=console):
        path = out / f"{_name(file, choice, streams)}.json"
        if not path.is_file():
            recogniser = recogniser or Recogniser(choice, device, threads)
            _write(path, file, recogniser, streams)
        heard[file] = _read(path)
    return [new for clip in clips for new in (_cut(clip, heard[clip.sound], rules) if clip.sound in heard else [clip])]


def _name(file: Path, choice: AsrChoice, streams: StreamChoice) -> str:
    """A transcript belongs to a path, its size, and a choice of model and of the track."""
    size = file.stat().st_size if file.is_file() else 0
    track = f"\n{streams.sound}" if streams.sound else ""
    named = f"{file.absolute()}\n{size}\n{choice}{track}".encode("utf-8", "surrogateescape")
    stem = file.stem.encode("utf-8", "surrogateescape")[:_NAMED].decode("utf-8", "ignore")
    return f"{stem}-{hashlib.blake2b(named, digest_size=6).hexdigest()}"


def _write(path: Path, file: Path, recogniser: Recogniser, streams: StreamChoice) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemofastError(f"{path.parent} cannot be made ({error.strerror}); choose another --out") from error
    segments, seconds = [], 0.0
    try:
        for sound, start in _stretches(file, streams):
            segments += recogniser(sound, start)
            seconds = start + len(sound) / SAMPLE_RATE
    except UnreadableMedia:
        pass
    words = [[vars(word) for word in segment] for segment in segments]
    write_json(path, {"file": str(file), "seconds": round(seconds, 3), "segments": words})


def _read(path: Path) -> Transcript:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return Transcript(read["seconds"], [[Word(**word) for word in segment] for segment in read["segments"]])
    except (ValueError, KeyError, TypeError) as error:
        raise MemofastError(f"{path} is not a transcript ({error}); delete it and run again") from error


def _stretches(file: Path, streams: StreamChoice) -> Iterator[tuple[np.ndarray, float]]:
    """The sound of a file in stretches of some minutes, cut where it is quiet, and where each begins in seconds."""
    waiting, begin = np.zeros(0, np.float32), 0.0
    for start in count(0.0, 20 * _DECODED):
        spans = [Span(start + n * _DECODED, start + (n + 1) * _DECODED) for n in range(20)]
        excerpts = [
            excerpt for _, excerpt in sorted(decode(file, spans, see=None, streams=streams), key=lambda pair: pair[0])
        ]
        for excerpt in excerpts:
            if excerpt.sound is None or not len(excerpt.sound):
                if len(waiting):
                    yield waiting, begin
                return
            waiting = np.concatenate((waiting, excerpt.sound))
            if len(waiting) >= _HEARD * SAMPLE_RATE:
                cut = _quietest(waiting)
                yield waiting[:cut], begin
                waiting, begin = waiting[cut:], begin + cut / SAMPLE_RATE


def _quietest(sound: np.ndarray) -> int:
    """Where to cut, in samples: the middle of the quietest moment of the last seconds."""
    window, first = int(_QUIET * SAMPLE_RATE), len(sound) - int(_SEARCHED * SAMPLE_RATE)
    sums = np.concatenate(([0.0], np.cumsum(sound[first:].astype(np.float64) ** 2)))
    return first + int(np.argmin(sums[window:] - sums[:-window])) + window // 2


def _cut(clip: Clip, heard: Transcript, rules: SentenceRules) -> list[Clip]:
    whole = clip.start is None and clip.end is None
    if not whole or heard.seconds <= rules.longest:
        start, end = clip.start or 0.0, math.inf if clip.end is None else clip.end
        words = [word for segment in heard.segments for word in segment]
        said = "".join(word.text for word in words if start <= (word.start + word.end) / 2 < end).strip()
        return [replace(clip, text=said or None)]
    tell_file(clip.sound)
    cues = [Cue(segment[0].start, segment[-1].end, "".join(w.text for w in segment)) for segment in heard.segments]
    cues = [replace(cue, text=cue.text.strip()) for cue in cues if cue.text.strip() and cue.end > cue.start]
    return sentence_clips(clip, *sentences_of(cues, rules)) or [clip]

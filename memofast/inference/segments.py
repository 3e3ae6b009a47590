"""Utterances of media: sentences of subtitles where there are any, else stretches in which somebody speaks, else equal
windows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.prepare.media.decoding import decode, length_of
from memofast.prepare.media.excerpts import SAMPLE_RATE, Span, UnreadableMedia
from memofast.prepare.media.streams import ANY_STREAM, QUIET, StreamChoice
from memofast.prepare.sources.clips import Clip, Found, SourceOptions, find_clips
from memofast.prepare.sources.table import Columns
from memofast.prepare.speech.voice import VoiceActivity, open_voice, runs
from memofast.prepare.subtitles.sentences import SentenceRules

_WHOLE = 10.0  # seconds up to which a file without subtitles is one utterance
_WINDOW = 10.0  # seconds of a piece where nobody speaks anywhere
_HEARD = 60.0  # seconds of sound in memory
_PAUSE = 0.5  # seconds of silence between two utterances
_SHORTEST = 0.5  # seconds of speech
_MARGIN = 0.15  # seconds kept on each side


@dataclass(frozen=True)
class Cutting:
    """subtitles: `auto` or `none`. windows: seconds of equal pieces for files without subtitles; None: by voice."""

    subtitles: str = "auto"
    windows: float | None = None

    def __post_init__(self):
        if self.subtitles not in ("auto", "none"):
            raise MemofastError(f"--subtitles is auto or none, not {self.subtitles!r}")


def read_clips(source: str, cutting: Cutting, longest: float, columns: Columns = Columns()) -> Found:
    """The clips of a media file, a folder or a table, by their subtitles, by id, and what is left out.

    Args: longest: seconds of a clip in the model's training. columns: which are read of a table, but for labels, groups
        and values, which nothing is predicted from.
    Raises: `MemofastError` where the source holds nothing.
    """
    if cutting.windows is not None and not 0 < cutting.windows <= longest:
        raise MemofastError(
            f"--windows is more than 0 and at most {longest:g} seconds, as the model's training cut there"
        )
    sentences = SentenceRules(longest=longest)
    read = replace(columns, label=None, group=None, emotions=None, value=None)
    return find_clips([source], SourceOptions(read, subtitles=cutting.subtitles, sentences=sentences))


def cut_clips(
    clips: list[Clip], cutting: Cutting, longest: float, voice: VoiceActivity | None, tracks: StreamChoice = ANY_STREAM
) -> list[Clip]:
    """The clips, those that are whole files without words cut into utterances of at most `longest` seconds; voice: what
    hears speech in the sound track, None for the best there is."""
    found: list[Clip] = []
    for clip in clips:
        whole = clip.start is None and clip.end is None and not (clip.text or clip.problem)
        found += (
            _cut(clip, cutting.windows, longest, voice, tracks) if whole and (clip.picture or clip.sound) else [clip]
        )
    return found


def _cut(
    clip: Clip, windows: float | None, longest: float, voice: VoiceActivity | None, tracks: StreamChoice
) -> list[Clip]:
    seconds = length_of(clip.picture or clip.sound)
    if seconds is None or (windows is None and seconds <= _WHOLE):
        return [clip]
    pieces = (
        []
        if windows or clip.sound is None
        else spoken_pieces(clip.sound, seconds, longest, voice or open_voice("auto"), tracks)
    )
    pieces = pieces or equal_pieces(0.0, seconds, windows or min(_WINDOW, longest))
    digits = max(4, len(str(len(pieces))))
    return [
        replace(clip, id=f"{clip.id}_{number:0{digits}}", start=start, end=end)
        for number, (start, end) in enumerate(pieces, 1)
    ]


def equal_pieces(start: float, end: float, longest: float) -> list[tuple[float, float]]:
    """Pieces of `longest` seconds, the last one as long as it is."""
    count = max(1, math.ceil((end - start) / longest - 1e-3))
    edges = [start + number * longest for number in range(count)] + [end]
    return [(round(a, 3), round(b, 3)) for a, b in pairwise(edges)]


def spoken_pieces(
    file: Path, seconds: float, longest: float, voice: VoiceActivity, tracks: StreamChoice = ANY_STREAM
) -> list[tuple[float, float]]:
    """Start and end of the stretches in which somebody speaks; longer ones are cut equally. Nothing where nobody
    does."""
    stretches: list[tuple[float, float]] = []
    for start, end in _spoken(file, seconds, voice, tracks):
        if stretches and start - stretches[-1][1] < _PAUSE:
            stretches[-1] = stretches[-1][0], end
        else:
            stretches.append((start, end))
    pieces = []
    for start, end in stretches:
        if end - start >= _SHORTEST:
            start, end = max(0.0, start - _MARGIN), min(seconds, end + _MARGIN)
            parts = math.ceil((end - start) / longest)
            edges = np.linspace(start, end, parts + 1).round(3).tolist()
            pieces += list(pairwise(edges))
    return pieces


def _spoken(file: Path, seconds: float, voice: VoiceActivity, tracks: StreamChoice) -> Iterator[tuple[float, float]]:
    """Start and end of every run of voice activity, a minute of sound in memory at a time."""
    windows = [Span(start, start + _HEARD) for start in np.arange(0.0, seconds, _HEARD).tolist()]
    try:
        for index, excerpt in decode(file, windows, see=None, streams=tracks):
            if excerpt.sound is None or len(excerpt.sound) < SAMPLE_RATE // 10 or np.abs(excerpt.sound).max() < QUIET:
                continue
            for begin, end in runs(voice(excerpt.sound)):
                yield windows[index].start + begin * voice.hop, windows[index].start + end * voice.hop
    except UnreadableMedia:
        return  # the extraction reports it

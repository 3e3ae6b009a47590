"""Where somebody begins to speak in a file."""

from pathlib import Path

import numpy as np

from memofast.prepare.media.decoding import decode
from memofast.prepare.media.excerpts import SAMPLE_RATE, Span
from memofast.prepare.media.streams import QUIET, StreamChoice
from memofast.prepare.speech.voice import VoiceActivity, runs

_WINDOW = 60.0  # seconds of sound in memory
_SHORTEST = 0.25  # seconds of speech
_MARGIN = 0.15  # seconds kept before it


def first_speech(sound: np.ndarray, voice: VoiceActivity | None) -> float | None:
    """Seconds from the start of sound [samples] float32 at 16 kHz to the first speech in it, or without `voice` to the
    first sound; None where there is none."""
    if voice is None:
        loud = np.flatnonzero(np.abs(sound) >= QUIET)
        return int(loud[0]) / SAMPLE_RATE if len(loud) else None
    spoken = (run for run in runs(voice(sound)) if (run[1] - run[0]) * voice.hop >= _SHORTEST)
    first = next(spoken, None)
    return None if first is None else first[0] * voice.hop


def speech_after(file: Path, begin: float, voice: VoiceActivity | None, streams: StreamChoice) -> float | None:
    """Seconds from the start of a file to just before the first speech after `begin`, None where there is none.

    Raises: `MemofastError` for a file that does not open.
    """
    windows = _windows(begin)
    while True:
        spans = [next(windows) for _ in range(8)]
        for index, excerpt in decode(file, spans, see=None, streams=streams):
            found = None if excerpt.sound is None else first_speech(excerpt.sound, voice)
            if found is not None:
                return max(begin, spans[index].start + found - _MARGIN)
            if not excerpt.goes_on:
                return None


def _windows(begin: float):
    while True:
        yield Span(begin, begin + _WINDOW)
        begin += _WINDOW

"""Who speaks: which of the persons seen in a clip moves the mouth as the sound goes.

Three scores of MEmoBERT's preparation, without its faults, and the correlation of mouth and sound over lags, fused by
ranks. Detectors that give no landmarks of the lips leave the score of mouth openness out.
"""

from dataclasses import dataclass

import numpy as np

from memofast.prepare.faces.detection import MouthSamples
from memofast.prepare.faces.tracks import Track
from memofast.prepare.media.decoding import SAMPLE_RATE, Span

_RATE = 25  # samples a second of mouth and sound
_LAGS = range(-2, 5)  # samples by which the sound follows the mouth, -80 to 160 ms
_BANDS = ((300.0, 3400.0), (380.0, 950.0), (950.0, 2400.0))  # Hz, those that follow the opening of the mouth
_SHORTEST = 25  # samples that mouth and sound must share
_LONGEST_GAP = 0.1  # seconds for which a mouth may be unseen
# grey levels per 1/25 s; silent mouths of GRID stay below in nine of ten frames, speaking ones do not in one of four
_MOVES = 2.0
_WINDOW = 1024  # samples of sound, 64 ms


@dataclass(frozen=True)
class Scores:
    """Of one person: steps in which the mouth moves, those of them while somebody speaks, correlation of mouth and
    sound in -1..1 (None: too little seen)."""

    moves: int
    matches: int
    correlation: float | None


def active_speaker(
    persons: list[Track], span: Span, sound: np.ndarray | None, spoken: np.ndarray | None, hop: float
) -> tuple[Track | None, Scores | None]:
    """The one of several persons who speaks, and their scores; None where nobody visible speaks.

    Args: span, the piece of the film in which they were seen; sound [samples] float32 of that piece at 16 kHz; spoken
    [n] bool, voice activity every `hop` seconds. Without the last two, mouths alone decide.
    Persons whose mouth never moves, or never while somebody speaks, do not speak; among the others the sum of 1 /
    sqrt(rank) over the scores decides (ties share a rank). Source: MEmoBERT's active speaker, with the correlation as
    one score more.
    """
    bands = sound_bands(sound) if sound is not None else None
    scored = [(person, score(mouth_of(person, span), bands, spoken, hop)) for person in persons]
    scored = [(person, scores) for person, scores in scored if scores.moves and (spoken is None or scores.matches)]
    if not scored:
        return None, None
    fused = np.zeros(len(scored))
    for name in ("moves", "matches", "correlation"):
        fused += 1 / np.sqrt(_dense_ranks([getattr(scores, name) for _, scores in scored]))
    return scored[int(np.argmax(fused))]


def _dense_ranks(values: list[float | None]) -> np.ndarray:
    """1 for the highest, equal values sharing a rank, None last."""
    order = sorted({-2.0 if value is None else value for value in values}, reverse=True)
    return np.array([1 + order.index(-2.0 if value is None else value) for value in values])


def mouth_of(track: Track, span: Span) -> MouthSamples:
    """The samples of a person's mouth inside a span, in seconds from its start."""
    samples = MouthSamples()
    for face in track.faces:
        samples.extend(face.mouth)
    inside = MouthSamples()
    for time, dark, contrast in zip(samples.times, samples.dark, samples.contrast, strict=True):
        if span.start <= time < span.end:
            inside.add(time - span.start, dark, contrast)
    for time, motion in zip(samples.moved, samples.motion, strict=True):
        if span.start <= time < span.end:
            inside.add_step(time - span.start, motion)
    return inside


def score(mouth: MouthSamples, bands: np.ndarray | None, spoken: np.ndarray | None, hop: float) -> Scores:
    """The scores of one mouth beside a sound."""
    moves = np.array(mouth.moved)[np.array(mouth.motion) > _MOVES] if mouth.moved else np.zeros(0)
    matches = 0
    if spoken is not None and len(spoken):
        matches = int(spoken[np.clip((moves / hop).astype(int), 0, len(spoken) - 1)].sum())
    return Scores(len(moves), matches, correlation(mouth, bands) if bands is not None else None)


def sound_bands(sound: np.ndarray) -> np.ndarray:
    """[n, 3] float64: log energy in three bands of speech, every 1/25 s."""
    n = int(len(sound) / SAMPLE_RATE * _RATE)
    starts = (np.arange(n) * SAMPLE_RATE) // _RATE
    padded = np.concatenate((np.zeros(_WINDOW // 2, np.float32), sound, np.zeros(_WINDOW, np.float32)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[starts] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    frequency = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    inside = [(frequency >= low) & (frequency < high) for low, high in _BANDS]
    return np.log(np.stack([power[:, band].sum(1) for band in inside], 1) + 1e-4).reshape(n, len(_BANDS))


def correlation(mouth: MouthSamples, bands: np.ndarray) -> float | None:
    """Highest mean correlation, over lags, of opening, contrast and motion of a mouth with the bands of a sound; None
    where they share less than a second."""
    if len(bands) < _SHORTEST:
        return None
    grid = np.arange(len(bands)) / _RATE
    signals = [
        _sampled(mouth.times, mouth.dark, grid),
        _sampled(mouth.times, mouth.contrast, grid),
        _sampled(mouth.moved, mouth.motion, grid),
    ]
    found = [_mean_correlation(signals, bands, lag) for lag in _LAGS]
    return max((value for value in found if value is not None), default=None)


def _sampled(times: list[float], values: list[float], grid: np.ndarray) -> np.ndarray:
    """Values at the times of the grid, smoothed over three samples, NaN where none is near."""
    if not times:
        return np.full(len(grid), np.nan)
    times = np.asarray(times)
    at = np.interp(grid, times, values)
    after = np.clip(np.searchsorted(times, grid), 0, len(times) - 1)
    nearest = np.minimum(np.abs(times[after] - grid), np.abs(times[np.maximum(after - 1, 0)] - grid))
    return np.where(nearest <= _LONGEST_GAP, _smooth(at), np.nan)


def _smooth(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, ((1, 1),) + ((0, 0),) * (values.ndim - 1), mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _mean_correlation(signals: list[np.ndarray], bands: np.ndarray, lag: int) -> float | None:
    sound = _smooth(bands)
    sound = sound[lag:] if lag >= 0 else sound[:lag]
    found = []
    for signal in signals:
        signal = signal[: len(signal) - lag] if lag >= 0 else signal[-lag:]
        there = np.isfinite(signal)
        if there.sum() < _SHORTEST:
            return None
        found.append((_standard(signal[there])[:, None] * _standard(sound[there])).mean())
    return float(np.mean(found))


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / (values.std(0) + 1e-9)

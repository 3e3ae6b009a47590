"""Whether subtitles lie where somebody speaks, and by how much they would have to move."""

from dataclasses import dataclass

import numpy as np

from memofast.prepare.subtitles.timings import Cue

_STEP = 0.05  # seconds; offsets are estimated to this
_FURTHEST = 60.0  # seconds
FEWEST_CUES = 8  # fewer say nothing about an offset
_AGREE = 0.2  # correlation below which subtitles and speech do not belong together
_BETTER = 0.1  # gain of correlation from which cues are moved


@dataclass(frozen=True)
class Offset:
    """seconds: to be added to the cues' times. correlation: of cues and speech after that; before: of the cues as they
    are."""

    seconds: float
    correlation: float
    before: float

    @property
    def moves(self) -> bool:
        """Whether the cues should be moved: they fit clearly better elsewhere."""
        return self.fits and abs(self.seconds) > 2 * _STEP and self.correlation - self.before >= _BETTER

    @property
    def fits(self) -> bool:
        """Whether cues and speech belong together at all."""
        return self.correlation >= _AGREE


def estimate_offset(cues: list[Cue], speech: np.ndarray, hop: float) -> Offset | None:
    """The shift of up to a minute at which cues and speech [n] bool, one every `hop` seconds, correlate best; None with
    too few cues or no change.

    Among equally good shifts the smallest is taken.
    """
    timed = [cue for cue in cues if cue.start is not None]
    if len(timed) < FEWEST_CUES:
        return None
    steps = int(np.ceil(max(len(speech) * hop, max(cue.end for cue in timed)) / _STEP)) + 1
    spoken = _sampled(speech, hop, steps)
    shown = np.zeros(steps)
    for cue in timed:
        shown[round(cue.start / _STEP) : round(cue.end / _STEP)] = 1
    deviation = spoken.std() * shown.std()
    if deviation == 0:
        return None
    most = min(int(_FURTHEST / _STEP), steps - 1)
    size = 1 << (2 * steps - 1).bit_length()  # zeros behind keep the ends from meeting
    spectrum = np.fft.rfft(spoken - spoken.mean(), size) * np.conj(np.fft.rfft(shown - shown.mean(), size))
    products = np.fft.irfft(spectrum, size)
    lags = np.arange(-most, most + 1)
    correlation = products[lags] / (steps * deviation)
    best = lags[np.lexsort((np.abs(lags), -np.round(correlation, 3)))[0]]
    return Offset(float(best * _STEP), float(correlation[best + most]), float(correlation[most]))


def _sampled(speech: np.ndarray, hop: float, steps: int) -> np.ndarray:
    """Speech every `_STEP` seconds, silence past its end."""
    places = np.minimum((np.arange(steps) * _STEP / hop).astype(np.int64), len(speech))
    return np.append(speech, False)[places].astype(np.float64)

"""Sound itself as rows, for a network that is trained along."""

import numpy as np

from memofast.prepare.media.decoding import SAMPLE_RATE
from memofast.prepare.speech.rows import stacked_rows

SAMPLES = 320  # of a row: 20 ms, the hop of wav2vec2
PICTURES = 25  # a second; a row of another rate than 16 kHz is as long as one of them is seen
RATES = (100, 192_000)
_LIMITS = np.iinfo(np.int16)


class RawSpeech:
    """The samples themselves, int16, without overlap; the last row is filled with zeros. rate: in Hz; at 16 kHz there
    are 320 to a row, else 40 ms."""

    name, dtype, normalisation = "raw", "int16", "none"

    def __init__(self, rate: int = SAMPLE_RATE):
        self.rate = rate
        self.width = SAMPLES if rate == SAMPLE_RATE else rate // PICTURES
        self.hop = self.window = self.width / rate
        self.fingerprint = f"raw-1-{rate}-{self.width}"

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Sound [samples] float32, 1 its full scale -> [ceil(samples / width), width] int16, rounded; what lies beyond
        16 bits becomes the largest that these hold."""
        return stacked_rows(_scaled(sound).clip(_LIMITS.min, _LIMITS.max).astype(np.int16)[:, None], self.width)


def rate_of(text: str) -> int | None:
    """A rate in Hz that rows of 40 ms are whole samples of, None for what is none."""
    rate = int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0
    return rate if RATES[0] <= rate <= RATES[1] and rate % PICTURES == 0 else None


def beyond_16_bits(sound: np.ndarray) -> int:
    """How many samples [n] float32 are clipped on their way to int16."""
    scaled = _scaled(sound)
    return int(np.count_nonzero((scaled < _LIMITS.min) | (scaled > _LIMITS.max)))


def _scaled(sound: np.ndarray) -> np.ndarray:
    return np.round(sound * np.float32(-_LIMITS.min))

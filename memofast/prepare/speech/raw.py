"""Sound itself as rows, for a network that is trained along."""

import numpy as np

from memofast.prepare.media.decoding import SAMPLE_RATE
from memofast.prepare.speech.rows import stacked_rows

SAMPLES = 320  # of a row: 20 ms, the hop of wav2vec2
_LIMITS = np.iinfo(np.int16)


class RawSpeech:
    """The samples at 16 kHz themselves, int16, 320 to a row without overlap; the last row is filled with zeros."""

    name, width, dtype, normalisation = "raw", SAMPLES, "int16", "none"
    hop = window = SAMPLES / SAMPLE_RATE
    fingerprint = f"raw-1-{SAMPLE_RATE}-{SAMPLES}"

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Sound [samples] float32, 1 its full scale -> [ceil(samples / 320), 320] int16, rounded; what lies beyond 16
        bits becomes the largest that these hold."""
        return stacked_rows(_scaled(sound).clip(_LIMITS.min, _LIMITS.max).astype(np.int16)[:, None], SAMPLES)


def beyond_16_bits(sound: np.ndarray) -> int:
    """How many samples [n] float32 are clipped on their way to int16."""
    scaled = _scaled(sound)
    return int(np.count_nonzero((scaled < _LIMITS.min) | (scaled > _LIMITS.max)))


def _scaled(sound: np.ndarray) -> np.ndarray:
    return np.round(sound * np.float32(-_LIMITS.min))

"""Log-mel rows of a sound, in plain NumPy."""

import numpy as np

from memofast.prepare.media.decoding import SAMPLE_RATE

BANDS = 80
_WINDOW, _HOP, _FFT = 400, 160, 512  # 25 ms, 10 ms
_LOWEST, _HIGHEST = 20.0, 8000.0  # Hz


class LogMel:
    """Log power in 80 mel bands every 10 ms; the loudest 80 dB of a clip, scaled as (log10 + 4) / 4 (the scaling of
    Whisper)."""

    name = "logmel"
    width = BANDS
    hop = _HOP / SAMPLE_RATE
    window = _WINDOW / SAMPLE_RATE
    fingerprint = f"logmel-1-{BANDS}-{_WINDOW}-{_HOP}-{_FFT}"
    normalisation = "log10, floor 8 below the clip's maximum, (x + 4) / 4"
    dtype = "float16"

    def __init__(self):
        self._bank = mel_bank()
        self._window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if len(sound) < _WINDOW:
            return np.empty((0, BANDS), np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_HOP]
        power = np.concatenate([self._power(frames[i : i + 1000]) for i in range(0, len(frames), 1000)])
        logarithm = np.log10(np.maximum(power, 1e-10))
        return ((np.maximum(logarithm, logarithm.max() - 8) + 4) / 4).astype(np.float32)

    def _power(self, frames: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(frames * self._window, _FFT)
        return (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ self._bank


def mel_bank() -> np.ndarray:
    """[257, 80] float32: triangles between points equally spaced on the mel scale 2595 log10(1 + f / 700), each of unit
    area."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    frequencies = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    rising = (frequencies[:, None] - edges[:-2]) / np.diff(edges[:-1])
    falling = (edges[2:] - frequencies[:, None]) / np.diff(edges[1:])
    return (np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)

"""Voice activity: when somebody speaks in a sound."""

from typing import Protocol

import numpy as np
import torch

from memofast.errors import MemofastError
from memofast.prepare.media.decoding import SAMPLE_RATE

_FRAME, _HOP, _PRE_EMPHASIS = 400, 160, 0.97  # 25 ms, 10 ms
_NEIGHBOURS, _SHARE = 5, 0.6
_ABOVE_QUIET = 2.07  # 9 dB in natural logarithms of power
_CHUNK = 512  # samples that silero judges at once


class VoiceActivity(Protocol):
    """Called with sound [samples] float32 at 16 kHz; says whether there is speech, [n] bool, one every `hop`
    seconds."""

    name: str
    hop: float

    def __call__(self, sound: np.ndarray) -> np.ndarray: ...


class EnergyVoice:
    """Speech is where 60 % of the eleven frames around are loud: above 5.5 + half the mean log energy of the sound, on
    the scale of 16-bit samples (Kaldi's rule, as MEmoBERT's preparation meant it), and 9 dB above the quietest tenth,
    so that constant noise is none.

    Music passes for speech: for films prefer silero.
    """

    name = "energy"
    hop = _HOP / SAMPLE_RATE

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if len(sound) < _FRAME:
            return np.zeros(0, bool)
        x = sound.astype(np.float64) * 32768
        x[1:] -= _PRE_EMPHASIS * x[:-1]
        sums = np.concatenate(([0.0], np.cumsum(x * x)))
        starts = np.arange(0, len(x) - _FRAME + 1, _HOP)
        energy = np.log(np.maximum(256 * (sums[starts + _FRAME] - sums[starts]), 1.0))
        loud = energy > max(5.5 + 0.5 * energy.mean(), np.quantile(energy, 0.1) + _ABOVE_QUIET)
        counts = np.concatenate(([0], np.cumsum(loud)))
        low = np.maximum(np.arange(len(loud)) - _NEIGHBOURS, 0)
        high = np.minimum(np.arange(len(loud)) + _NEIGHBOURS + 1, len(loud))
        return counts[high] - counts[low] >= _SHARE * (high - low)


class SileroVoice:
    """silero-vad, whose weights are part of its package; speech is where its probability is at least .5."""

    name = "silero"
    hop = _CHUNK / SAMPLE_RATE

    def __init__(self):
        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        except ImportError:
            raise MemofastError('silero-vad is not installed: pip install "memofast[speech]"') from None
        finally:
            torch.set_num_threads(threads)  # importing it sets one thread
        self._model = load_silero_vad()

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if not len(sound):
            return np.zeros(0, bool)
        self._model.reset_states()
        with torch.no_grad():
            probability = self._model.audio_forward(torch.from_numpy(sound)[None], sr=SAMPLE_RATE)
        return probability[0].numpy() >= 0.5


def open_voice(kind: str) -> VoiceActivity:
    """`silero`, `energy`, or `auto`: silero where it is installed. Raises MemofastError for another kind and where
    silero is not installed."""
    if kind == "energy":
        return EnergyVoice()
    if kind not in ("silero", "auto"):
        raise MemofastError(f"--voice is auto, silero or energy, not {kind!r}")
    try:
        return SileroVoice()
    except MemofastError:
        if kind == "silero":
            raise
        return EnergyVoice()


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last-but-one index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(begin), int(end)) for begin, end in zip(edges[::2], edges[1::2], strict=True)]

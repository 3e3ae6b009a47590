import importlib.util

import numpy as np
import pytest
import torch

from memofast.errors import MemofastError
from memofast.prepare.media.decoding import SAMPLE_RATE, Span, decode
from memofast.prepare.speech.voice import EnergyVoice, open_voice

needs_silero = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")


def noise(seconds: float, level: float) -> np.ndarray:
    return (level * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def test_energy_finds_what_is_loud():
    speech = EnergyVoice()(np.concatenate((noise(1, 1e-4), noise(1, 0.1), noise(1, 1e-4))))
    times = np.flatnonzero(speech) * EnergyVoice.hop
    assert times[0] == pytest.approx(1, abs=0.05) and times[-1] == pytest.approx(2, abs=0.05)
    assert speech[105:195].all()


def test_energy_is_smoothed():
    click = np.concatenate((noise(1, 1e-4), noise(0.01, 0.5), noise(1, 1e-4)))
    assert not EnergyVoice()(click).any()
    pause = np.concatenate((noise(0.5, 1e-4), noise(1, 0.1), noise(0.03, 1e-4), noise(1, 0.1), noise(0.5, 1e-4)))
    assert EnergyVoice()(pause)[60:245].all()


@pytest.mark.parametrize("samples", [0, 399, 400, 560])
def test_short_sounds(samples):
    assert len(EnergyVoice()(np.zeros(samples, np.float32))) == max(0, (samples - 240) // 160)


@needs_silero
def test_silero_leaves_threads_alone_and_hears_no_speech_in_noise():
    threads = torch.get_num_threads()
    voice = open_voice("silero")
    assert torch.get_num_threads() == threads
    assert not voice(noise(2, 0.05)).any() and not len(voice(np.zeros(0, np.float32)))
    assert len(voice(np.zeros(SAMPLE_RATE, np.float32))) == pytest.approx(1 / voice.hop, abs=1)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["energy", pytest.param("silero", marks=needs_silero)])
def test_real_speech(real_data, kind):
    path = sorted((real_data / "speech" / "ravdess16k").rglob("*.flac"))[0]
    ((_, excerpt),) = decode(path, [Span()], see=None)
    voice = open_voice(kind)
    speech = voice(excerpt.sound)
    spoken = np.flatnonzero(speech) * voice.hop
    assert 0.2 < speech.mean() < 0.8
    assert (
        spoken[0] > 0.5 and spoken[-1] < len(excerpt.sound) / SAMPLE_RATE - 0.5
    )  # the clip begins and ends in silence


def test_unknown_kind_is_one_line():
    with pytest.raises(MemofastError, match="auto, silero or energy"):
        open_voice("webrtc")

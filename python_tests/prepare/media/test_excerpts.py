"""Sound of several channels, and on any scale, as one channel."""

import numpy as np
import pytest
from films import Tone, pitch, write_film

from memofast.prepare.media.decoding import decode
from memofast.prepare.media.excerpts import Span, one_channel

TIME = np.arange(16_000) / 16_000
LEFT = (0.4 * np.sin(2 * np.pi * 300 * TIME)).astype(np.float32)
RIGHT = (0.2 * np.sin(2 * np.pi * 1100 * TIME)).astype(np.float32)


@pytest.mark.parametrize("right", [RIGHT, 0 * LEFT, LEFT, -0.5 * LEFT], ids=["other", "silent", "same", "some"])
def test_channels_are_averaged(right):
    sound, notes = one_channel(np.stack([LEFT, right]))
    np.testing.assert_allclose(sound, (LEFT + right) / 2, atol=1e-7)
    assert not notes


@pytest.mark.parametrize(("left", "right", "taken"), [(LEFT, -LEFT, 1), (0.8 * LEFT, -LEFT, 2)])
def test_of_channels_that_cancel_each_other_the_loudest_is_taken(left, right, taken):
    sound, notes = one_channel(np.stack([left, right]))
    np.testing.assert_array_equal(sound, (left, right)[taken - 1])
    assert notes == [("out of phase", f"channel {taken} of 2 is used")]


def test_silence_is_not_out_of_phase():
    assert one_channel(np.zeros((2, 100), np.float32))[1] == []
    assert one_channel(np.zeros((1, 0), np.float32))[1] == []


def test_sound_on_another_scale_is_brought_to_a_peak_of_one_and_told():
    sound, notes = one_channel(7.5 * LEFT[None])
    np.testing.assert_allclose(sound, LEFT / np.abs(LEFT).max(), rtol=1e-5)
    assert notes == [("over full scale", "peak 3, scaled to 1")]
    overshoot, notes = one_channel(3 * LEFT[None])  # 1.2, as of lossy codecs
    np.testing.assert_array_equal(overshoot, 3 * LEFT)
    assert not notes


def test_samples_that_are_no_numbers_are_silent_and_told():
    broken = np.stack([LEFT, LEFT])
    broken[0, 5], broken[1, 9] = np.nan, np.inf
    sound, notes = one_channel(broken)
    assert np.isfinite(sound).all() and sound[5] == LEFT[5] / 2
    assert notes == [("sound mended", "2 samples are no numbers; silent there")]


def test_float_sound_over_full_scale_in_a_file(tmp_path):
    path = write_film(tmp_path / "a.wav", Tone(500, 2, "pcm_f32le", level=3.0, layout="stereo"))
    ((_, excerpt),) = decode(path, [Span()], see=None)
    middle = excerpt.sound[4000:-4000]
    assert np.abs(middle).max() == pytest.approx(1, abs=1e-2) and pitch(middle) == pytest.approx(500, abs=1)
    third = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))[1500 * len(middle) // 16_000]
    assert third < 1e-2 * len(middle)  # not clipped
    assert excerpt.notes[0][0] == "over full scale"


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_levels_are_those_of_the_file(tmp_path, layout):
    path = write_film(tmp_path / "a.wav", Tone(500, 1, "pcm_s16le", level=0.7, layout=layout))
    ((_, excerpt),) = decode(path, [Span()], see=None)
    assert np.abs(excerpt.sound[2000:-2000]).max() == pytest.approx(0.7, abs=5e-3)

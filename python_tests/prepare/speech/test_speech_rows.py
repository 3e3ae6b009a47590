import sys
from itertools import pairwise

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.prepare.speech import extractors as speech
from memofast.prepare.speech import logmel
from memofast.prepare.speech import rows as rows_of


def sine(hertz, seconds=1.0, level=0.3):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.float32)


def test_logmel_has_a_row_every_ten_milliseconds_and_finds_the_pitch():
    rows = logmel.LogMel()(sine(1000))
    assert rows.shape == (98, 80) and rows.dtype == np.float32 and np.isfinite(rows).all()
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + f / 700) for f in (20, 8000)), 82) / 2595) - 1)
    loudest = rows.mean(0).argmax()
    assert edges[loudest] < 1000 < edges[loudest + 2]


def test_logmel_bands_cover_every_frequency():
    bank = logmel.mel_bank()
    assert (bank.sum(0) > 0).all() and (bank[2:-1].sum(1) > 0).all()


def test_logmel_of_too_little_sound_and_of_long_sound():
    assert logmel.LogMel()(sine(440, 0.02)).shape == (0, 80)
    long = sine(440, 12.0)
    part = logmel.LogMel()(long[:16_000])
    np.testing.assert_allclose(logmel.LogMel()(long)[:98], part, atol=1e-4)


def test_mean_rows_averages_the_last_group_as_it_is():
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    means = rows_of.mean_rows(rows, 3)
    np.testing.assert_allclose(means, [rows[:3].mean(0), rows[3:6].mean(0), rows[6]])
    assert rows_of.mean_rows(rows, 1) is rows and rows_of.mean_rows(rows[:0], 3).shape == (0, 2)


def test_times_are_the_middles_of_what_rows_cover():
    np.testing.assert_allclose(rows_of.row_times(7, 3, 0.02, 0.025), [0.0325, 0.0925, 0.1325])
    np.testing.assert_allclose(rows_of.row_times(2, 1, 0.02, 0.025), [0.0125, 0.0325])
    assert len(rows_of.row_times(0, 3, 0.02, 0.025)) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 11, 300])
def test_functionals_are_those_of_whole_halves_and_quarters(count):
    frames = np.random.default_rng(count).normal(3, 2, (count, 5)).astype(np.float32)
    choice = speech.parse_speech("logmel", None, "1+2+4")
    rows, times = choice.rows(frames), choice.times(count, 0.01, 0.025)
    places = [np.arange(count)]
    for parts in (2, 4):
        middle = (np.arange(min(parts, count) + 1) * count / min(parts, count)).round().astype(int)
        places += [np.arange(first, last) for first, last in pairwise(middle)]
    assert sum(map(len, places)) == 3 * count and all(map(len, places))
    expected = [[frames[place].mean(0), frames[place].std(0)] for place in places]
    np.testing.assert_allclose(rows, np.reshape(expected, (len(places), 10)), atol=1e-5)
    np.testing.assert_allclose(times, [0.01 * place.mean() + 0.0125 for place in places], rtol=1e-5)
    assert (rows.dtype, times.dtype, choice.width(5), choice.summary) == (
        np.float32, np.float32, 10, "functionals of 1+2+4",
    )  # fmt: skip


def test_no_frames_have_no_functionals():
    choice = speech.parse_speech("logmel", None, "1+2")
    assert choice.rows(np.zeros((0, 3), np.float32)).shape == (0, 6) and len(choice.times(0, 0.01, 0.025)) == 0


@pytest.mark.parametrize("text", ["", "0", "1+", "1,2", "-1", "a", "1+1000"])
def test_other_functionals_are_refused(text):
    with pytest.raises(MemofastError, match=r"--speech-functionals .*: give how many parts"):
        speech.parse_speech("logmel", None, text)
    with pytest.raises(MemofastError, match="give --speech-mean or --speech-functionals"):
        speech.parse_speech("logmel", 3, "1+2")


def test_functionals_of_descriptors_normed_within_the_clip_say_nothing_of_it():
    with pytest.raises(MemofastError, match="give --speech compare,normalise=none"):
        speech.parse_speech("compare", None, "1+2+4")
    assert speech.parse_speech("compare", None, "2+4").parts == (2, 4)


def test_choices():
    assert speech.parse_speech("logmel", None).mean == 6 and speech.parse_speech("egemaps", None).mean == 5
    choice = speech.parse_speech("wav2vec2=models/w", 4)
    assert (choice.kind, str(choice.path), choice.mean, choice.layer) == ("wav2vec2", "models/w", 4, "last")
    choice = speech.parse_speech("hubert=odd, name/h,layer=6", None)
    assert (str(choice.path), choice.mean, choice.layer) == ("odd, name/h", 3, "6")
    for wrong in ("mfcc", "wav2vec2", "logmel=x", "=", ""):
        with pytest.raises(MemofastError, match="--speech is"):
            speech.parse_speech(wrong, None)
    for wrong in ("0", "-1", "x", "", "last+last", "conv+", "1+x", "99999"):
        with pytest.raises(MemofastError, match="layer is last, conv or a number"):
            speech.parse_speech(f"wavlm=m,layer={wrong}", None)
    with pytest.raises(MemofastError, match="no setting 'row'; it takes layer=last"):
        speech.parse_speech("wavlm=m,row=1", None)


@pytest.mark.parametrize("kind", ["compare", "egemaps"])
def test_absent_opensmile_is_named_with_its_command(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(MemofastError, match=r'pip install "memofast\[opensmile\]"'):
        speech.open_speech(speech.parse_speech(kind, None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "width", "loud"),
    [
        ("compare", 130, "pcm_RMSenergy_sma"),
        ("egemaps", 25, "Loudness_sma3"),
        ("compare+egemaps", 155, "Loudness_sma3"),
    ],
)
def test_opensmile_rows(kind, width, loud):
    pytest.importorskip("opensmile")
    extractor = speech.open_speech(speech.parse_speech(kind, None))
    rows = extractor(sine(300))
    assert rows.shape[1] == extractor.width == width and 90 < len(rows) < 101
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-3)
    assert extractor(sine(300, 0.04)).shape == (0, width)
    sound = 1e-4 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    sound[8000:8032] += 0.9  # a click at .5 s
    loudness = extractor(sound)[:, extractor.columns.index(loud)]
    times = rows_of.row_times(len(loudness), 1, extractor.hop, extractor.window)
    np.testing.assert_allclose(times[loudness > loudness.max() / 2].mean(), 0.5, atol=0.006)


@pytest.mark.slow
def test_descriptors_as_they_are_keep_their_level():
    pytest.importorskip("opensmile")
    choice = speech.parse_speech("compare,normalise=none", None)
    assert speech.SpeechChoice.described(str(choice), None, choice.mean) == choice
    within, bare = (speech.open_speech(one) for one in (speech.parse_speech("compare", None), choice))
    loud = bare.columns.index("pcm_RMSenergy_sma")
    levels = [bare(gain * sine(300))[:, loud].mean() for gain in (0.1, 1.0)]
    assert levels[1] == pytest.approx(10 * levels[0], rel=1e-3)
    rows = bare(sine(300)).astype(np.float64)
    np.testing.assert_allclose((rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-5), within(sine(300)), atol=2e-2)
    assert (within.dtype, bare.dtype, bare.normalisation) == ("float16", "float32", "none")


def test_normalise_is_clip_or_none():
    with pytest.raises(MemofastError, match="normalise is clip or none, not 'speaker'"):
        speech.parse_speech("egemaps,normalise=speaker", None)
    with pytest.raises(MemofastError, match="logmel has no setting 'normalise'"):
        speech.parse_speech("logmel,normalise=none", None)

"""Whole pictures and fine sound on one time base of 25 rows a second, whatever the film's own."""

import films
import numpy as np
import pytest
from films import Picture, Tone, write_film

from memofast.prepare.faces.extractors import FaceChoice, parse_face
from memofast.prepare.faces.whole_frames import WholeFrames, evenly_timed
from memofast.prepare.media.decoding import decode
from memofast.prepare.media.excerpts import Span
from memofast.prepare.media.streams import ANY_STREAM
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.run.settings import Settings
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import SpeechChoice, parse_speech
from memofast.prepare.speech.raw import RawSpeech
from memofast.sections import checked


def test_a_frame_for_each_25th_of_a_second():
    """The one that is seen in its middle: some of 30 are left out, those of 10 stand for two or three."""
    assert evenly_timed([n / 30 for n in range(30)], 1.0).tolist() == [int((n + 0.5) / 25 * 30) for n in range(25)]
    assert evenly_timed([n / 25 for n in range(50)], 2.0).tolist() == [*range(50)]
    slow = evenly_timed([n / 10 for n in range(10)], 1.0)
    assert slow.tolist() == [int((n + 0.5) / 2.5) for n in range(25)] and set(slow) == {*range(10)}
    assert evenly_timed([0.0, 0.9], 1.0).tolist() == [0] * 22 + [1] * 3  # a gap is filled by what was seen before it
    assert evenly_timed([0.1], 0.2).tolist() == [0] * 5  # what begins late is seen before too
    assert evenly_timed([0.0], 0.001).tolist() == [0]


def test_the_middle_square_in_colour():
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, :30], picture[:, 30:50], picture[:, 50:70], picture[:, 70:] = 255, (10, 20, 30), (200, 100, 50), 255
    found = WholeFrames(16).look(picture)
    assert found.shape == (16, 16, 3)
    assert (found[:, :7] == (30, 20, 10)).all() and (found[:, 9:] == (50, 100, 200)).all()
    large = WholeFrames(64)
    assert large.look(picture).shape == (64, 64, 3) and large.width == 3 * 64 * 64


@pytest.mark.parametrize("rate", [10, 25, 30])
def test_rows_of_a_film(tmp_path, rate):
    """Pictures carry their numbers; a tone of 4 kHz is heard at 12 kHz, and at 16 kHz beside."""
    film = write_film(tmp_path / "f.mkv", Picture(2.0, rate=rate), Tone(3900, 2.0, "pcm_s16le"), format="matroska")
    options = ExtractionOptions(FaceChoice("frames", side=64), None, SpeechChoice("raw", None, 1, rate=12_000), 30.0)
    (found,) = Extraction(options)([Clip("c", film, film, start=0.4, end=1.6)])
    assert not found.problems and found.faces.rows.shape == (30, 64 * 64 * 3) and found.sound.rows.shape == (30, 480)
    np.testing.assert_allclose(found.faces.times, (np.arange(30) + 0.5) / 25, atol=1e-6)
    np.testing.assert_allclose(found.sound.times, (np.arange(30) + 0.5) / 25, atol=1e-6)
    numbers = [number_of(row.reshape(64, 64, 3)) for row in found.faces.rows]
    expected = np.floor((0.4 + (np.arange(30) + 0.5) / 25) * rate + 1e-3)
    assert np.abs(np.array(numbers) - expected).max() <= 1 and np.abs(np.array(numbers) - expected).mean() < 0.5
    wave = found.sound.rows.reshape(-1)
    assert np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave))))) / 1.2 == pytest.approx(3900, abs=2)


def number_of(picture):
    grey = picture.mean(2)
    return sum(1 << i for i in range(16) if grey[i // 4 * 16 + 8, i % 4 * 16 + 8] > 128)


def test_fine_sound_is_the_same_sound(tmp_path):
    film = write_film(tmp_path / "f.mkv", Tone(700, 2.0, "pcm_s16le", 48_000), format="matroska")
    spans = [Span(0.0, 1.0), Span(0.5, 1.5)]
    for index, excerpt in decode(film, spans, see=None, streams=ANY_STREAM, fine_rate=48_000):
        assert len(excerpt.fine) == 48_000 and len(excerpt.sound) == 16_000, index
        np.testing.assert_allclose(excerpt.fine[::3][100:-100], excerpt.sound[100:-100], atol=5e-3)
    (_, plain), *_ = decode(film, spans, see=None)
    assert plain.fine is None and films.pitch(plain.sound) == pytest.approx(700, abs=1)


def test_rows_of_raw_sound():
    speech = RawSpeech(8000)
    assert (speech.width, speech.hop, speech.fingerprint) == (320, 0.04, "raw-1-8000-320")
    assert RawSpeech().width == 320 and RawSpeech().hop == 0.02 and RawSpeech(48_000).width == 1920
    rows = speech(np.linspace(-1, 1, 700).astype(np.float32))
    assert rows.shape == (3, 320) and rows.dtype == np.int16 and not rows[2, 60:].any()


def test_choices_in_words():
    face = parse_face("frames,side=112")
    assert str(face) == "frames side 112" and FaceChoice.described(str(face), None) == face
    assert parse_face("frames").side == 224
    speech = parse_speech("raw,rate=48000", None)
    assert str(speech) == "raw rate 48000" and SpeechChoice.described(str(speech), None, 1) == speech
    assert str(parse_speech("raw", None)) == "raw" and parse_speech("raw,rate=16000", None).rate == 16_000
    kept = {"face": "frames side 112", "speech": "raw rate 48000"}
    assert checked(kept, "prepare.json", Settings).speech == "raw rate 48000"
    for name, wrong in (
        ("face", "frames side"),
        ("face", "frames side x"),
        ("speech", "raw rate"),
        ("speech", "raw x"),
    ):
        with pytest.raises(Exception, match=name):
            checked({name: wrong}, "prepare.json", Settings)

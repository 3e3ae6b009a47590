"""Speech that begins late in a file is found."""

import numpy as np
import pytest
from films import Tone, pitch, write_film

from memofast.prepare.media.streams import ANY_STREAM
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.beginning import first_speech, speech_after
from memofast.prepare.speech.extractors import parse_speech


class Loud:
    """Takes sound above .1 for speech, in steps of a hundredth of a second."""

    name, hop = "loud", 0.01

    def __call__(self, sound):
        return np.abs(sound[: len(sound) // 160 * 160]).reshape(-1, 160).max(1) > 0.1


def test_the_first_speech_in_a_sound():
    sound = np.zeros(80_000, np.float32)
    sound[8000:8800] = 0.5  # a click of 50 ms
    sound[32_000:40_000] = 0.5
    assert first_speech(sound, Loud()) == 2.0
    assert first_speech(sound, None) == 0.5
    assert first_speech(0 * sound, Loud()) is None and first_speech(0 * sound, None) is None


@pytest.mark.parametrize("begin", [40.0, 571.5])
def test_speech_is_found_however_late_it_begins(tmp_path, begin):
    path = write_film(tmp_path / "a.wav", Tone(seconds=begin + 4, rate=8000, codec="pcm_s16le", quiet=begin))
    for voice in (Loud(), None):
        assert speech_after(path, 30.0, voice, ANY_STREAM) == pytest.approx(begin - 0.15, abs=0.02)
    assert speech_after(path, begin + 5, None, ANY_STREAM) is None


@pytest.mark.parametrize("voice", ["energy", "none"])
@pytest.mark.parametrize(("quiet", "start"), [(40.0, 39.85), (20.0, 0.0), (100.0, 0.0)])
def test_a_whole_file_is_used_from_where_somebody_speaks(tmp_path, voice, quiet, start):
    path = write_film(tmp_path / "a.wav", Tone(hz=700, seconds=60, rate=16_000, codec="pcm_s16le", quiet=quiet))
    extraction = Extraction(ExtractionOptions(None, None, parse_speech("logmel", None), 30.0, voice))
    (found,) = extraction([Clip("a", sound=path, text="Somebody says this.")])
    reasons = [problem.reason for problem in found.problems]
    assert found.span.start == pytest.approx(start, abs=0.2)
    assert "cut" in reasons
    assert ("silent" in reasons) == (quiet == 100.0)
    if quiet < 100:
        assert found.sound is not None


def test_where_it_begins_is_told(tmp_path):
    path = write_film(tmp_path / "a.wav", Tone(seconds=90, rate=8000, codec="pcm_s16le", quiet=40.1))
    options = ExtractionOptions(None, None, parse_speech("logmel", None), 20.0, keep_sound=True)
    (found,) = Extraction(options)([Clip("a", sound=path)])
    assert [(p.reason, p.detail) for p in found.problems] == [
        ("cut", "longer than 20 s; 39.9 to 59.9 s of 90.0 s are used, before which nobody speaks")
    ]
    assert pitch(found.heard.wave[16_000:]) == pytest.approx(500, abs=1)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memofast.prepare.subtitles.offset import estimate_offset
from memofast.prepare.subtitles.timings import Cue

HOP = 0.032


def film(seed: int, cues: int = 60) -> tuple[list[Cue], np.ndarray]:
    """Cues, and speech during most of them and a little besides."""
    draw = np.random.default_rng(seed)
    starts = 70 + np.cumsum(draw.uniform(2, 12, cues))
    found = [
        Cue(start, start + length, "words") for start, length in zip(starts, draw.uniform(1, 4, cues), strict=True)
    ]
    speech = draw.random(round((starts[-1] + 90) / HOP)) < 0.05
    for cue in found:
        speech[round(cue.start / HOP) : round(cue.end / HOP)] = draw.random() < 0.9
    return found, speech


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-55, 55))
def test_a_shift_is_found(seed, shift):
    cues, speech = film(seed)
    shifted = [Cue(cue.start - shift, cue.end - shift, cue.text) for cue in cues]
    found = estimate_offset(shifted, speech, HOP)
    assert found.seconds == pytest.approx(shift, abs=0.15)
    assert found.fits and found.moves == (abs(found.seconds) > 0.1 and found.correlation - found.before >= 0.1)


def test_good_subtitles_are_left_alone():
    found = estimate_offset(*film(1), HOP)
    assert found.fits and not found.moves


def test_subtitles_of_another_film_do_not_fit():
    found = estimate_offset(film(1)[0], film(2)[1], HOP)
    assert not found.fits and not found.moves


def test_too_little_to_say():
    cues, speech = film(1)
    assert estimate_offset(cues[:5], speech, HOP) is None
    assert estimate_offset(cues, np.zeros_like(speech), HOP) is None
    assert estimate_offset([Cue(None, None, "words")] * 20, speech, HOP) is None

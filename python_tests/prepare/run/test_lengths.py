"""What is said of clips, files and sentences that differ in length."""

import math

import numpy as np
import pytest

from memofast.prepare.media.excerpts import Excerpt, Span
from memofast.prepare.run.lengths import length_problems, seconds_of
from memofast.prepare.sources.clips import Clip


def sound(seconds: float) -> np.ndarray:
    return np.ones(round(seconds * 16_000), np.float32)


def told(excerpt, clip=None, longest=30.0):
    clip = clip or Clip("a")
    span = Span(clip.start or 0.0, min(clip.end or math.inf, (clip.start or 0.0) + longest))
    return {problem.reason: problem.detail for problem in length_problems(clip, span, excerpt, longest)}


def test_slides_are_as_long_as_their_last_picture_is_seen():
    slides = Excerpt([0.0, 2.0, 4.0, 6.0], [0] * 4, picture_end=8.0, sound=sound(8.0))
    assert told(slides) == {} and seconds_of(slides) == 8.0
    still = Excerpt([0.0], [0], picture_end=0.04, sound=sound(8.0))
    assert told(still) == {}
    short = Excerpt([0.0, 2.0], [0] * 2, picture_end=4.0, sound=sound(8.0))
    assert told(short) == {"uneven": "4.0 s of picture, 8.0 s of sound"}


def test_a_file_without_times_that_goes_on_is_cut():
    excerpt = Excerpt(sound=sound(20.0), goes_on=True, file_seconds=61.25)
    assert told(excerpt, longest=20.0) == {"cut": "longer than 20 s; 0.0 to 20.0 s of 61.2 s are used"}
    later = Excerpt(sound=sound(12.5), file_seconds=46.0, skipped=33.5)
    assert told(later, Clip("a", start=33.5), 20.0) == {
        "cut": "longer than 20 s; 33.5 to 46.0 s of 46.0 s are used, before which nobody speaks"
    }
    unknown = Excerpt(sound=sound(20.0), goes_on=True)
    assert told(unknown, longest=20.0) == {"cut": "longer than 20 s; 0.0 to 20.0 s are used"}
    assert told(Excerpt(sound=sound(20.0)), longest=20.0) == {}
    assert told(Excerpt(sound=sound(20.0), goes_on=True), Clip("a", start=5.0, end=26.0), 20.0) == {
        "cut": "longer than 20 s"
    }
    assert told(Excerpt(sound=sound(20.0), goes_on=True), Clip("a", start=5.0, end=25.0), 20.0) == {}


@pytest.mark.parametrize(
    ("text", "seconds", "far"),
    [
        ("Yes.", 10.5, False),
        ("Yes.", 11.5, True),
        ("I was going to tell you all about it yesterday.", 19.0, False),
        ("I was going to tell you all about it yesterday.", 21.0, True),
        ("昨天我本来要把这件事都告诉你", 20.0, False),
        ("昨天我本来要把这件事都告诉你", 22.0, True),
        (None, 500.0, False),
    ],
)
def test_a_film_far_longer_than_its_sentence(text, seconds, far):
    clip = Clip("a", text=text)
    assert ("longer than its words" in told(Excerpt(file_seconds=seconds), clip)) == far
    assert "longer than its words" not in told(Excerpt(file_seconds=500.0), Clip("a", text=text, start=2.0, end=4.0))


def test_of_a_file_of_unknown_length_what_was_decoded_counts():
    assert "longer than its words" in told(Excerpt(sound=sound(15.0)), Clip("a", text="Yes."))


def test_sentences_beyond_the_end():
    sentence = Clip("a", text="Yes.", start=4.0, end=7.5)
    assert told(Excerpt(sound=sound(2.0)), sentence) == {"beyond the end": "2.0 s of 3.5 s are there"}
    assert told(Excerpt(sound=sound(2.0), goes_on=True), sentence) == {}
    assert told(Excerpt(sound=sound(3.0)), sentence) == {}
    assert told(Excerpt(sound=sound(2.0), complete=False), sentence) == {}  # which is told as damaged


def test_where_nothing_is_decoded_the_file_says_how_long_it_is():
    sentence = Clip("a", text="Yes.", start=4.0, end=7.5)
    assert seconds_of(Excerpt(read=False)) is None
    assert told(Excerpt(read=False, file_seconds=60.0), sentence) == {}
    assert told(Excerpt(read=False), sentence) == {}
    assert told(Excerpt(read=False, file_seconds=6.0), sentence) == {"beyond the end": "2.0 s of 3.5 s are there"}
    assert told(Excerpt(read=False, file_seconds=2.0), sentence) == {"beyond the end": "0.0 s of 3.5 s are there"}

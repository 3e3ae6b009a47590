"""Samples as rows, and frames side by side: their values, times and names."""

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.prepare.run.settings import Settings
from memofast.prepare.speech.extractors import SpeechChoice, open_speech, parse_speech
from memofast.prepare.speech.raw import beyond_16_bits
from memofast.prepare.speech.rows import stacked_rows

BASE = {"max_seconds": 1.0}


def test_samples_become_the_nearest_whole_numbers_and_the_last_row_ends_in_zeros():
    samples = np.random.default_rng(0).integers(-32768, 32768, 3 * 320 + 7)
    sound = ((samples + np.random.default_rng(1).uniform(-0.49, 0.49, len(samples))) / 32768).astype(np.float32)
    choice, extractor = parse_speech("raw", None), open_speech(parse_speech("raw", None))
    rows = choice.rows(extractor(sound))
    assert rows.shape == (4, 320) and rows.dtype == np.int16 == np.dtype(extractor.dtype)
    assert np.array_equal(rows.reshape(-1)[: len(samples)], samples) and not rows[3, 7:].any()
    np.testing.assert_allclose(choice.times(4, extractor.hop, extractor.window), [0.01, 0.03, 0.05, 0.07])
    assert (choice.width(extractor.width), choice.summary, str(choice)) == (320, "16 bit samples", "raw")


def test_what_lies_beyond_16_bits_is_clipped_and_counted():
    sound = np.array([1.0, -1.0, 1.2, -1.5, 32767 / 32768, 0.25], np.float32)
    assert beyond_16_bits(sound) == 3
    (row,) = open_speech(parse_speech("raw", None))(sound)
    assert row[:7].tolist() == [32767, -32768, 32767, -32768, 32767, 8192, 0]


def test_frames_side_by_side():
    frames = np.arange(1, 15, dtype=np.float32).reshape(7, 2)
    rows = stacked_rows(frames, 3)
    assert rows.tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [13, 14, 0, 0, 0, 0]]
    choice = parse_speech("logmel,stack=3", None)
    assert np.array_equal(choice.rows(frames), rows) and choice.rows(frames[:0]).shape == (0, 6)
    assert choice.width(2) == 6 and choice.summary == "stack of 3"
    # of seven frames of 25 ms every 10 ms: 0 to 45 ms, 30 to 75, and the seventh alone
    np.testing.assert_allclose(choice.times(7, 0.01, 0.025), [0.0225, 0.0525, 0.0725])


@pytest.mark.parametrize("text", ["raw", "logmel,stack=8", "compare,stack=100", "egemaps,normalise=none,stack=2"])
def test_choices_come_back_from_their_words(text):
    choice = parse_speech(text, None)
    assert choice.mean == 1 and SpeechChoice.described(str(choice), None, choice.mean) == choice
    Settings(**BASE, speech=str(choice))


def test_what_does_not_go_together_is_refused():
    for stack in ("1", "0", "101", "08", "x", "", "-2", "2.0"):
        with pytest.raises(MemofastError, match="--speech compare: stack is 2 to 100, not"):
            parse_speech(f"compare,stack={stack}", None)
    for given, option in (((2, None), "--speech-mean"), ((None, "1+2"), "--speech-functionals")):
        with pytest.raises(MemofastError, match=f"--speech raw keeps the samples themselves.*leave {option} out"):
            parse_speech("raw", *given)
        with pytest.raises(MemofastError, match=f"logmel,stack=8 puts frames side by side.*leave {option} out"):
            parse_speech("logmel,stack=8", *given)
    with pytest.raises(MemofastError, match="raw has no setting 'stack'"):
        parse_speech("raw,stack=8", None)
    for wrong in ("logmel stack 1", "logmel stack x", "logmel stack 8 stack"):
        with pytest.raises(ValueError, match="kind of speech rows"):
            Settings(**BASE, speech=wrong)

"""SubRip and WebVTT as they are found."""

import pytest

from memofast.prepare.sources.clips import SourceOptions, read_sources
from memofast.prepare.subtitles.timings import Cue, subtitle_cues
from memofast.prepare.text.text_log import TextLog

A, B = Cue(1.0, 2.5, "Go\non"), Cue(3.0, 4.0, "home.")
PLAIN = "1\n00:00:01,000 --> 00:00:02,500\nGo\non\n\n2\n00:00:03,000 --> 00:00:04,000\nhome.\n"


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "\r\r\n"])
def test_every_line_end(ends):
    assert subtitle_cues(PLAIN.replace("\n", ends)) == [A, B]
    named = "WEBVTT\n\n" + PLAIN.replace("2\n00", "second\n00").replace(",", ".")
    assert subtitle_cues(named.replace("\n", ends)) == [A, B]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("Go\non", "Go\n\non"),
        PLAIN.replace("00:00:", "00:"),
        PLAIN.replace("00:00:", "0:0:"),
        PLAIN.replace(",", "."),
        PLAIN.replace("-->", "->"),
        PLAIN.replace(",500\n", ",5  X1:10 X2:20 Y1:1 Y2:2\n"),
        PLAIN.replace("\n\n2\n", "\n2\n"),
        PLAIN.replace("1\n00", "00").replace("2\n00", "00"),
        "WEBVTT\n\n" + PLAIN.replace(",", "."),
        "WEBVTT\n\n" + PLAIN.replace("1\n00", "first one\n00").replace(",", "."),
        "WEBVTT\n\nSTYLE\n::cue {}\n\n" + PLAIN.replace("on\n\n2", "on\n\nNOTE said\nby none\n\n2"),
        "WEBVTT\n\n" + PLAIN.replace("Go\non\n\n2\n", "Go\n\non\n\n"),
    ],
)
def test_ways_of_writing_the_same(text):
    assert subtitle_cues(text) == [A, B]


@pytest.mark.parametrize("numbered", [True, False])
def test_numbers_that_are_said_stay(numbered):
    text = PLAIN.replace("on\n", "on\n42\n").replace("home.", "The answer is\n7")
    if not numbered:
        text = text.replace("1\n00:", "00:").replace("2\n00:", "00:")
    assert [cue.text for cue in subtitle_cues(text)] == ["Go\non\n42", "The answer is\n7"]
    assert [cue.text for cue in subtitle_cues(PLAIN.replace("home.", "42"))] == ["Go\non", "42"]


def test_the_number_of_a_cue_that_was_cut_off_is_told():
    with TextLog() as log:
        assert subtitle_cues(PLAIN + "\n3\n") == [A, B]
    assert log.samples["index"][0]["text"] == "3"


def test_negative_times_spoil_their_own_cue(tmp_path):
    (tmp_path / "film.wav").write_bytes(b"")
    (tmp_path / "film.srt").write_text(PLAIN.replace("00:00:01", "-00:00:01"))
    early, late = read_sources([str(tmp_path)], SourceOptions())
    assert early.text is None and early.problem.startswith("bad times: line 2, '-00:00:01,000 --> ")
    assert "'Go\\non'" in early.problem
    assert (late.text, late.start, late.end, late.problem) == ("home.", 3.0, 4.0, None)


def test_cues_without_times_or_duration_are_told():
    text = PLAIN.replace(",500", ",000").replace("02,000", "01,000") + "\n3\n0:0x --> 9\nlost\n"
    with TextLog() as log:
        assert subtitle_cues(text) == [B]
    assert log.samples["cue without duration"][0]["text"].endswith("Go\non")
    assert log.samples["cue without times"][0]["text"] == "line 11, '0:0x --> 9': lost"

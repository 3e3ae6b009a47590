import pytest

from memofast.prepare.subtitles.repeats import without_repeats
from memofast.prepare.subtitles.sentences import SentenceRules, sentences_of
from memofast.prepare.subtitles.timings import Cue, subtitle_cues
from memofast.prepare.text.text_log import TextLog

LIVE = """WEBVTT
Kind: captions

00:00:00.500 --> 00:00:03.000 align:start position:0%
 \nwe<00:00:01.000><c> begin</c><00:00:01.500><c> with</c><00:00:02.000><c> joy</c>

00:00:03.000 --> 00:00:03.010 align:start position:0%
we begin with joy
 \n
00:00:03.010 --> 00:00:06.000 align:start position:0%
we begin with joy
[Music]
then<00:00:04.500><c> comes</c><00:00:05.000><c> fear</c>

00:00:06.000 --> 00:00:06.010 align:start position:0%
then comes fear
 \n
00:00:06.010 --> 00:00:09.000 align:start position:0%
then comes fear
and<00:00:07.500><c> joy</c><00:00:08.000><c> again</c>
"""


def said(cues: list[Cue]) -> list[tuple]:
    return [(cue.start, cue.end, cue.text) for cue in cues]


def test_automatic_captions_are_their_words_once():
    with TextLog() as log:
        cues = subtitle_cues(LIVE)
    assert [cue.text for cue in cues] == ["we begin with joy", "[Music]\nthen comes fear", "and joy again"]
    assert [(cue.start, cue.end) for cue in cues] == [(0.5, 3.01), (3.01, 6.0), (6.01, 9.0)]
    kept, _ = sentences_of(cues, SentenceRules())
    assert " ".join(cue.text for cue in kept) == "we begin with joy then comes fear and joy again"
    assert log.removed["repeated cue"] == 4


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a b\nc d\ne f", "c d\ne f\ng h", "e f\ng h\ni j"], ["a b\nc d\ne f", "g h", "i j"]),
        (["welcome", "welcome to", "welcome to the show"], ["welcome", "to", "the show"]),
        (["one", "one\ntwo", "two\nthree", "three"], ["one", "two", "three"]),
    ],
)
def test_captions_that_roll_or_grow(texts, words):
    cues = [Cue(float(t), t + 1.0, text) for t, text in enumerate(texts)]
    assert [cue.text for cue in without_repeats(cues)] == words


def test_the_same_cue_again_is_one():
    same = Cue(1.0, 4.0, "Same words here.")
    assert without_repeats([same] * 3) == [same]
    halves = [Cue(1.0, 2.0, "No!"), Cue(2.0, 3.0, "No!"), Cue(5.0, 6.0, "No!")]
    assert said(without_repeats(halves)) == [(1.0, 3.0, "No!"), (5.0, 6.0, "No!")]


def test_what_is_said_again_stays():
    cues = [Cue(1.0, 2.0, "No."), Cue(2.2, 3.0, "No."), Cue(3.0, 4.0, "No.\nNever."), Cue(4.0, 5.0, "Yes.")]
    assert without_repeats(cues) == cues
    two = [Cue(1.0, 3.0, "Hello."), Cue(1.0, 3.0, "Bonjour.")]
    assert without_repeats(two) == two

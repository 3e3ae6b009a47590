import pytest

from memofast.prepare.subtitles.timings import clean_sentence
from memofast.prepare.text.markup import plain_lines
from memofast.prepare.text.text_log import TextLog


@pytest.mark.parametrize(
    "text",
    [
        "I know that 3 < 5 and 7 > 6",
        "I <3 you so much >.<",
        "if a < b and c > d",
        "a <- b -> c",
        "{name} is {0}",
        "<John> said <laughs>",
        "write to <ann@x.org>",
        "AT&T, Q&A; black&white &notanentity;",
        "You are my #1 fan & C# is #2",
    ],
)
def test_what_only_looks_like_markup_stays(text):
    with TextLog() as log:
        assert plain_lines(text) == clean_sentence(text) == text
    assert not log.removed


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<i>Hello</i> <b>you</b> <u>there</u>", "Hello you there"),
        ('<font color="#ff0000" face=Arial>red</font>', "red"),
        ("<v Mary Ann>Ham</v> and <c.yellow.bg_blue>eggs</c>", "Ham and eggs"),
        ("< i >loose< /i > <I>LARGE</I>", "loose LARGE"),
        ("so<00:00:01.469><c> it</c> goes", "so it goes"),
        ("<marquee>old</marquee> </blink>", "old"),
        ("one<br>two<BR/>three", "one\ntwo\nthree"),
        ("{\\an8}up {\\i1}there{\\i0} {y:i}now", "up there now"),
        ("I don&#39;t know &quot;why&quot; isn&apos;t &#x2019;", "I don't know \"why\" isn't \u2019"),
        ("caf&eacute;&nbsp;&amp;amp; bar &hearts;", "café & bar ♥"),
        ("&lt;i&gt;tags as entities&lt;/i&gt;, 1 &lt;3", "tags as entities, 1 <3"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</ruby>です", "漢字です"),
        ("\ufeffWhere\u200b are\u00ad you\u200e \u202bgoing\u202c?", "Where are you going?"),
    ],
)
def test_markup_goes(text, plain):
    assert plain_lines(text) == plain


def test_joiners_stay_where_they_are_spelling():
    assert plain_lines("می\u200cروم 👩\u200d👧 क्\u200dष") == "می\u200cروم 👩\u200d👧 क्\u200dष"
    assert plain_lines("no\u200cjoint\u200d") == "nojoint"


def test_braces_are_comments_in_substation_alone():
    assert plain_lines("{translator: sic}Yes, {\\i1}no", "substation") == "Yes, no"
    assert plain_lines("{sic}Yes") == "{sic}Yes"


def test_a_backslash_breaks_no_path_of_a_table():
    assert clean_sentence("C:\\new\\home") == "C:\\new\\home"
    assert clean_sentence("one\\N two") == "one two"


def test_what_went_is_counted_and_sampled():
    with TextLog() as log:
        for _ in range(11):
            plain_lines("<i>a</i>&amp;\u200b")
    told = log.as_json()["removed"]
    assert {rule: found["count"] for rule, found in told.items()} == {
        "tag": 22,
        "entity": 11,
        "invisible character": 11,
    }
    assert len(told["tag"]["samples"]) == 8 and told["tag"]["samples"][1] == {"file": "", "text": "</i>"}
    assert told["invisible character"]["samples"][0]["text"] == "U+200B"
    with TextLog() as other:
        pass
    assert not other.removed and log.removed["tag"] == 22

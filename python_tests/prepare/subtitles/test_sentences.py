import pytest

from memofast.prepare.subtitles.sentences import SentenceRules, script_of, sentences_of
from memofast.prepare.subtitles.timings import Cue, read_cues, subtitle_cues

RULES = SentenceRules()


def sentences(*cues: tuple, **rules) -> list[tuple]:
    found, _ = sentences_of([Cue(*cue) for cue in cues], SentenceRules(**rules))
    return [(round(cue.start, 2), round(cue.end, 2), cue.text) for cue in found]


def test_a_sentence_over_two_cues_is_joined():
    assert sentences((1, 3, "I thought that"), (3.2, 5, "you were gone.")) == [(1, 5, "I thought that you were gone.")]
    assert sentences((1, 3, "First,"), (3.2, 5, "John said no.")) == [(1, 5, "First, John said no.")]
    assert sentences((1, 3, "We see the..."), (3, 5, "...head-snarlers")) == [(1, 5, "We see the head-snarlers")]


def test_what_is_no_one_sentence_stays_apart():
    two = [(1, 3, "I thought so."), (3.2, 5, "you were gone.")]
    assert sentences(*two) == two
    two = [(1, 3, "At the left we can see..."), (3.2, 5, "At the right we can see.")]
    assert sentences(*two) == two
    two = [(1, 3, "I thought that"), (8, 10, "you were gone.")]
    assert sentences(*two) == two


def test_joining_ends_at_the_longest():
    cues = [(t, t + 2, "and then") for t in range(0, 20, 2)]
    found = sentences(*cues, longest=8.0)
    assert [end - start for start, end, _ in found] == [8, 8, 4]


def test_two_speakers_share_the_time_by_letters():
    found = sentences((0, 6, "- Where are you going?\n- Home."), shortest=0.5)
    assert [text for *_, text in found] == ["Where are you going?", "Home."]
    assert found[0][1] == found[1][0] and found[0][0] == 0 and found[1][1] == 6
    assert found[0][1] == pytest.approx(6 * 20 / 25)
    assert [t for *_, t in sentences((0, 6, "What is it?\n-Nothing at all."))] == ["What is it?", "Nothing at all."]
    assert sentences((0, 6, "- One speaker,\nsecond line.")) == [(0, 6, "One speaker, second line.")]


def test_only_what_is_said_is_kept():
    assert sentences((0, 2, "[door slams] JOHN: Stop, (shouting) now!")) == [(0, 2, "Stop, now!")]
    assert sentences((0, 2, "\u266a la la la \u266a"), (3, 5, "(sighs)")) == []
    assert sentences((0, 2, "It is 10:30, he said (twice).")) == [(0, 2, "It is 10:30, he said.")]


def test_short_sentences_are_set_aside():
    kept, brief = sentences_of([Cue(0, 0.4, "No!"), Cue(2, 4, "Never mind.")], RULES)
    assert [cue.text for cue in kept] == ["Never mind."] and [cue.text for cue in brief] == ["No!"]


def test_files_in_two_languages_are_split_by_script():
    lines = [(t, t + 2, f"你好 {t}\nHello there {t}.") for t in range(0, 30, 3)]
    assert [text for *_, text in sentences(*lines)] == [f"Hello there {t}." for t in range(0, 30, 3)]
    assert [text for *_, text in sentences(*lines, script="cjk")] == [f"你好 {t}" for t in range(0, 30, 3)]
    apart = [cue for t in range(0, 30, 3) for cue in ((t, t + 2, "Привет, друг."), (t, t + 2, "Hello, friend."))]
    assert {text for *_, text in sentences(*apart)} == {"Hello, friend."}
    few = [(t, t + 2, "All is well.") for t in range(0, 30, 3)] + [(40, 42, "東京")]
    assert len(sentences(*few)) == 11


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Où est-il ?", "latin"),
        ("Привет", "cyrillic"),
        ("你好 ok", "cjk"),
        ("カタカナ", "cjk"),
        ("한국어", "cjk"),
        ("12 ... !", ""),
    ],
)
def test_scripts(text, script):
    assert script_of(text) == script


ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,20,&H00FFFFFF,&H000000FF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,1,2,2,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,a note of the translator
Dialogue: 0,0:00:01.50,0:00:03.00,Default,Ann,0,0,0,,{\\pos(10,20)}Yes, no,\\Nand perhaps, too.
Dialogue: 0,0:00:04.00,0:00:05.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0 100 100{\\p0}
"""


def test_advanced_substation_keeps_its_commas(tmp_path):
    assert subtitle_cues(ASS) == [Cue(1.5, 3.0, "Yes, no,\nand perhaps, too.")]
    path = tmp_path / "film.ass"
    path.write_text(ASS, encoding="utf-16")
    assert sentences_of(read_cues(path), RULES)[0] == [Cue(1.5, 3.0, "Yes, no, and perhaps, too.")]


@pytest.mark.real
def test_real_subtitles(real_data):
    folder = real_data / "subtitles"
    kept, brief = sentences_of(read_cues(folder / "sintel_en.srt"), RULES)
    assert len(kept) + len(brief) == 26 and kept[0].text == "This blade has a dark past."
    kept, _ = sentences_of(read_cues(folder / "elephantsdream" / "captions.en.vtt"), RULES)
    assert "At the right we can see the the head-snarlers" in [cue.text for cue in kept]

"""Advanced SubStation: signs, songs and comments are not said."""

from memofast.prepare.subtitles.timings import Cue, subtitle_cues
from memofast.prepare.text.text_log import TextLog

HEAD = """[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def file(*events: tuple[str, str, str, str]) -> str:
    """Events of times, style, name and text."""
    lines = (f"Dialogue: 0,{times},{style},{name},0,0,0,,{text}\n" for times, style, name, text in events)
    return HEAD + "".join(lines)


FIRST, SECOND = "0:00:01.00,0:00:03.00", "0:00:04.00,0:00:05.50"


def test_signs_and_songs_are_not_said():
    text = file(
        (FIRST, "Default", "", "{\\i1}Hi{\\i0} {sic} there, you"),
        (FIRST, "Default", "", "{\\pos(320,50)\\c&HFF&}POLICE STATION"),
        (FIRST, "Signs", "", "EXIT"),
        (SECOND, "Default", "", "{\\k20}la{\\k30}la"),
        (SECOND, "Default", "", "{\\an8}At the top"),
        (SECOND, "Default", "Ann", "{\\move(0,0,9,9)}I am Ann"),
        (SECOND, "Default", "", "{\\p1}m 0 0 l 9 9{\\p0}"),
    )
    with TextLog() as log:
        cues = subtitle_cues(text)
    assert cues == [Cue(1.0, 3.0, "Hi there, you"), Cue(4.0, 5.5, "At the top"), Cue(4.0, 5.5, "I am Ann")]
    assert [sample["text"] for sample in log.samples["sign"]] == ["POLICE STATION", "EXIT"]
    assert log.samples["song"][0]["text"] == "lala" and log.samples["comment"][0]["text"] == "{sic}"


def test_a_file_that_places_all_has_no_signs():
    text = file((FIRST, "Default", "", "{\\pos(1,2)}One"), (SECOND, "Default", "", "{\\pos(1,2)}two"))
    assert [cue.text for cue in subtitle_cues(text)] == ["One", "two"]


def test_layers_of_one_line_are_one_cue_and_bad_times_their_own():
    text = file(
        (FIRST, "Default", "", "Twice"), (FIRST, "Shadow", "", "{\\blur3}Twice"),
        ("-0:00:04.00,0:00:05.00", "Default", "", "early"), ("0:00:05.00,0:00:05.00", "Default", "", "none"),
    )  # fmt: skip
    with TextLog() as log:
        early, twice = subtitle_cues(text)
    assert twice == Cue(1.0, 3.0, "Twice") and early.problem.startswith("bad times: -4 to 5 s")
    assert log.removed["repeated cue"] == log.removed["cue without duration"] == 1


def test_a_damaged_line_spoils_itself_alone():
    style = "Style: Default,Arial,not a size,&Hzz,,,,,,,,,,,,,,,,,,,\n"
    text = style + file((FIRST, "Default", "", "One"), ("0:00:0x.00,0:00:05.00", "Default", "", "lost, alas"))
    text += "Dialogue: 0,0:00:06.00\nDialogue:\n" + "Dialogue: 0,0:00:07.00,0:00:09.00,Default,,0,0,0,,Three, four"
    with TextLog() as log:
        cues = subtitle_cues("[Script Info]\n" + text)
    assert cues == [Cue(1.0, 3.0, "One"), Cue(7.0, 9.0, "Three, four")]
    assert log.removed["cue without times"] == 3
    assert "lost, alas" in log.samples["cue without times"][0]["text"]

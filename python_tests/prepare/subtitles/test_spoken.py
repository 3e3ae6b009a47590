# ruff: noqa: RUF001 - letters of many scripts are what is tested
import pytest

from memofast.prepare.subtitles.sentences import SentenceRules, sentences_of
from memofast.prepare.subtitles.spoken import turns_of
from memofast.prepare.subtitles.timings import Cue
from memofast.prepare.text.text_log import TextLog


@pytest.mark.parametrize(
    "text",
    [
        "You are my #1 fan and I am your #2.",
        "C# and F# minor",
        "#1 in C#",
        "#MeToo is in C#",
        "Meet me at 10:30: I wait.",
        "It is so: I go.",
        "WARNING: Do not enter.",
        "I TOLD YOU ONE THING: Never come back.",
        "DNA TEST: negative",
        "ICH SAGTE: Nein.",
        "Q: What?",
        "John: I am not going there.",
        "约翰：你好",
        "- I came - you know - late.",
        "hello :) and bye ;(",
    ],
)
def test_what_is_said_stays(text):
    with TextLog() as log:
        assert turns_of(text) == [text.removeprefix("- ")]
    assert not log.removed


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("\u266a la la la \u266a", []),
        ("\u266b I walk the line", []),
        ("\u266a\u266a la la", []),
        ("\u266a I walk\nthe line \u266a\nStop it!", ["Stop it!"]),
        ("\u266a la \u266a la \u266a", []),
        ("- \u266a la la \u266a\n- Stop it!", ["Stop it!"]),
        ("He sang \u266a la \u266a and left", ["He sang and left"]),
        ("\u266a la \u266a Stop it!", ["Stop it!"]),
        ("because you are mine \u266a", ["because you are mine"]),
        ("# I walk the line #", []),
        ("# I walk\nthe line #", []),
        ("#la la la#", []),
        ("\U0001f3b5 la la", []),
    ],
)
def test_songs(text, turns):
    assert [turn for turn in turns_of(text) if turn] == turns


@pytest.mark.parametrize(
    "name",
    [
        "JOHN", "ÉLODIE", "ИВАН", "McCOY", "O'BRIEN", "ANNA-LENA", "MR. SMITH", "JOHN & MARY", "JOHN AND MARY",
        "MAN #2", "WOMAN 1", "1ST MAN", "2nd BOY", "MAN (ON PHONE)", "VOICE ON RADIO", "SOLDIER ONE", "THE DOCTOR",
        ">> JOHN", ">>> JOHN", "- JOHN", "[door slams] JOHN", "ÉLODIE ",
    ],
)  # fmt: skip
def test_names_of_speakers_go(name):
    with TextLog() as log:
        assert turns_of(f"{name}: Where were you?") == ["Where were you?"]
    assert log.samples["speaker"][-1]["text"].endswith(":")


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("- Where are you? - Home.", ["Where are you?", "Home."]),
        ("-Where are you? -Home.", ["Where are you?", "Home."]),
        ("\u2013 \u00bfD\u00f3nde? \u2013 Aqu\u00ed \u2013 dice.", ["\u00bfD\u00f3nde?", "Aqu\u00ed \u2013 dice."]),
        ("- Go - Never", ["Go", "Never"]),
        (">> Hi there. >> Hello.", ["Hi there.", "Hello."]),
        (">> JOHN: yes. >> no.", ["yes.", "no."]),
        ("JOHN: Hi.\nMARY: Hello.", ["Hi.", "Hello."]),
        ("[JOHN]: Stop!", ["Stop!"]),
        ("eight >> three", ["eight >> three"]),
        ("What is it? - Nothing.", ["What is it? - Nothing."]),
    ],
)
def test_turns_on_one_line(text, turns):
    assert turns_of(text) == turns


def test_capitals_mark_nobody_where_all_is_in_capitals():
    lines = ["I TOLD YOU ONE THING: NEVER COME BACK.", "JOHN: GO HOME NOW.", "MAN #2: WHY?", ">> MARY: BECAUSE."]
    cues = [Cue(t, t + 2, line) for t, line in zip(range(0, 12, 3), lines, strict=True)]
    texts = [cue.text for cue in sentences_of(cues, SentenceRules())[0]]
    assert texts == [*lines[:2], "WHY?", "BECAUSE."]
    mixed = [*cues, *(Cue(t, t + 2, "And then they all went home again.") for t in range(20, 40, 3))]
    assert sentences_of(mixed, SentenceRules())[0][1].text == "GO HOME NOW."


def test_what_is_taken_out_is_told_by_rule():
    with TextLog() as log:
        turns_of("[sighs] JOHN: Yes (twice).\n\u266a la \u266a")
        sentences_of([Cue(t, t + 2, f"你好\nHello {t}.") for t in range(0, 9, 3)], SentenceRules())
    counts = {"description": 2, "speaker": 1, "song": 1, "other language": 3}
    assert dict(log.removed) == counts
    assert [sample["text"] for sample in log.samples["description"]] == ["[sighs]", "(twice)"]


def test_a_cue_with_a_problem_is_no_sentence():
    kept, others = sentences_of([Cue(-1, 2, "Too early", "bad times: no"), Cue(3, 5, "Good.")], SentenceRules())
    assert [cue.text for cue in kept] == ["Good."] and [cue.problem for cue in others] == ["bad times: no"]

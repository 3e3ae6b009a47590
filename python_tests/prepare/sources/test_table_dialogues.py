"""Dialogues of a table's columns: places by number or by order, wrong ones refused, and those of two tables apart."""

import json

import pytest

from memofast.errors import MemofastError
from memofast.prepare.sources.clips import Clip, SourceOptions, find_clips
from memofast.prepare.sources.leaks import check_groups
from memofast.prepare.sources.protocol import protocol_of_tables
from memofast.prepare.sources.table import Columns, parse_columns

NAMED = Columns(dialogue="talk", position="turn", speaker="who")
IN_ORDER = Columns(dialogue="talk", speaker="who")


def found_in(tmp_path, rows, columns=NAMED, name="said.csv"):
    (tmp_path / name).write_text("\n".join(["id,text,talk,turn,who", *rows]) + "\n")
    return find_clips([str(tmp_path / name)], SourceOptions(columns))


def test_places_are_numbers_or_the_order_of_rows(tmp_path):
    rows = ["b,so,1,7,Ann", "a,well,2,0,Bob", "d,good,1,3.0,", "c,bad,1,10,Ann", "e,bad,,,Cid"]
    found = found_in(tmp_path, rows)
    assert {clip.id: (clip.dialogue, clip.position, clip.speaker) for clip in found.clips} == {
        "a": ("2", 0, "Bob"), "b": ("1", 7, "Ann"), "c": ("1", 10, "Ann"), "d": ("1", 3, None),
        "e": (None, None, "Cid"),
    }  # fmt: skip
    assert found.notes == [f"{tmp_path}/said.csv: 1 of 5 rows name no dialogue; they are by themselves"]
    assert protocol_of_tables(found.clips).groups == {
        "dialogue": {"a": "2", "b": "1", "c": "1", "d": "1"},
        "position": {"a": "0", "b": "7", "c": "10", "d": "3"},
        "speaker": {"a": "Bob", "b": "Ann", "c": "Ann", "e": "Cid"},
    }
    found = found_in(tmp_path, rows, IN_ORDER)
    assert {clip.id: clip.position for clip in found.clips} == {"a": 0, "b": 0, "c": 2, "d": 1, "e": None}
    assert any("no position is named, so that dialogues are in the order of the rows" in note for note in found.notes)
    plain = find_clips([str(tmp_path / "said.csv")], SourceOptions())
    assert "columns not read: talk, turn, who" in plain.notes[0] and plain.clips[0].dialogue is None


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("4", r"row 3 of dialogue '1': position '4' as row 1 has"), ("4.0", "position '4.0' as row 1 has"),
        ("", "position '', which is no whole number"), ("4.5", "'4.5', which is no whole"), ("-1", "no whole number"),
        ("second", "no whole number"), ("\u0664", "no whole number"), ("1e3", "no whole number"),
        ("9" * 5000, r"position '9{18}\.\.\.', which is no whole number from 0 on \(of up to 18 digits\)"),
    ],
)  # fmt: skip
def test_places_that_are_none_or_taken_are_refused(tmp_path, cell, told):
    with pytest.raises(MemofastError, match=told):
        found_in(tmp_path, ["a,so,1,4,Ann", "b,so,2,4,Ann", f"c,so,1,{cell},Ann"])


def test_a_row_that_cannot_be_used_has_no_place(tmp_path):
    found = found_in(tmp_path, ["a,so,1,4,Ann", "b,so,1,4,Ann,more", "c,so,1,5,Ann"])
    assert [clip.position for clip in found.clips] == [4, 5, None] and found.clips[2].problem.startswith("bad row")


def test_dialogues_of_two_tables_are_different_ones(tmp_path):
    for name, talk in (("dev.csv", 1), ("test.csv", 2)):
        found_in(tmp_path, [f"{name[0]}1,so,1,0,Ann", f"{name[0]}2,so,{talk},1,Bob"], name=name)
    found = find_clips([str(tmp_path / name) for name in ("dev.csv", "test.csv")], SourceOptions(NAMED))
    assert [clip.dialogue for clip in found.clips] == ["dev/1", "dev/1", "test/1", "2"]
    assert [clip.speaker for clip in found.clips] == ["Ann", "Bob", "Ann", "Bob"]
    assert found.notes == [
        "1 dialogues are named by several sources (first: 1) and are different ones; theirs have the source's name "
        "before them"
    ]
    (tmp_path / "more").mkdir()
    found_in(tmp_path / "more", ["x,so,1,0,Ann"], name="dev.csv")
    found = find_clips([str(tmp_path / name) for name in ("dev.csv", "more/dev.csv")], SourceOptions(NAMED))
    assert [clip.dialogue for clip in found.clips] == ["dev-1/1", "dev-1/1", "dev-2/1"]


def test_dialogues_in_several_splits_are_told(tmp_path):
    clips = [Clip(str(n), split=split, dialogue=of) for n, (split, of) in enumerate(zip("aabb", "1223", strict=True))]
    assert check_groups(clips, {}, "id")[0].startswith("note: 1 of 3 dialogues are in several splits (2 is in a and b)")
    with pytest.raises(
        MemofastError, match="--split-by dialogue keeps each dialogue in one split, but 2 is in a and b"
    ):
        check_groups(clips, {}, "dialogue")
    (note,) = check_groups([*clips, Clip("5", group="g")], {}, "id")
    assert "--split-by dialogue keeps them whole" in note
    by_speaker = [Clip(str(n), dialogue="d", speaker=str(n)) for n in range(9)]
    (note,) = check_groups(by_speaker, {"test": 0.5}, "speaker")
    assert note.startswith("note: 1 of 1 dialogues are in several splits (d is in test and train)")


def test_cells_that_name_nobody_and_odd_ones(tmp_path):
    rows = [{"text": "so", "group": " ", "who": " Ann  A"}, {"text": "so", "group": "g", "who": "Bo\ud800b"}]
    (tmp_path / "said.json").write_text(json.dumps(rows))
    found = find_clips([str(tmp_path / "said.json")], SourceOptions(Columns(speaker="who")))
    assert [(clip.group, clip.speaker) for clip in found.clips] == [(None, "Ann A")]
    assert [entry.reason for entry in found.left_out] == ["odd characters"]


def test_a_template_of_nothing_is_no_dialogue(tmp_path):
    (tmp_path / "odd.csv").write_text("text,Sr No.,a[0]\nso,7,x\n")
    odd = find_clips([str(tmp_path / "odd.csv")], SourceOptions(parse_columns(["id={Sr No.}_{a[0]:>2}{{"])))
    assert odd.clips[0].id == "7_ x{"
    columns = Columns(dialogue="S{turn}_D{talk}")
    found = found_in(tmp_path, ["a,so,1,4,Ann", "b,so,,,Ann", "c,so,,,Bob", "d,so,2,,Bob"], columns)
    assert [clip.dialogue for clip in found.clips] == ["S4_D1", None, None, "S_D2"]
    rows = [{"text": "so", "talk": talk, "turn": turn} for talk, turn in ((float("nan"), None), (3, "x"))]
    (tmp_path / "said.json").write_text(json.dumps(rows))
    found = find_clips([str(tmp_path / "said.json")], SourceOptions(columns))
    assert [clip.dialogue for clip in found.clips] == [None, "Sx_D3"]


@pytest.mark.parametrize("column", ["{A", "{A}_{", "{}", "{A}{}", "{A!z}", "{A!r}", "{A:d}", "{A:{B}}", "{{A}}"])
def test_what_is_no_template_is_refused(column):
    with pytest.raises(MemofastError, match=r"--column id=\{.* is no template; in one columns stand in braces"):
        parse_columns([f"id={column}"])


def test_a_field_is_named_once():
    assert parse_columns(["text=a}", "text=a}", "id={a:>3}{{"]) == Columns(text="a}", id="{a:>3}{{")
    with pytest.raises(MemofastError, match="--column names text twice, as 'a' and 'b'; keep one"):
        parse_columns(["text=a", "text=b"])


def test_columns_that_say_nothing_are_refused(tmp_path):
    with pytest.raises(MemofastError, match=r"position=turn is a number in a dialogue; name that too"):
        parse_columns(["position=turn"])
    with pytest.raises(MemofastError, match=r"--column is for tables, and .*films is none"):
        (tmp_path / "films").mkdir()
        find_clips([str(tmp_path / "films")], SourceOptions(NAMED))

"""Tables: a row that is odd spoils itself alone, and nothing is joined, chosen or merged without a line."""

import json
import sys

import pytest
from media import write_clip

from memofast.data.corpus import Corpus
from memofast.data.folds import read_groups
from memofast.errors import MemofastError
from memofast.prepare.sources.clips import Clip, SourceOptions, find_clips
from memofast.prepare.sources.spellings import plain_form, spelling_notes
from memofast.prepare.sources.splits import check_split_names
from memofast.prepare.sources.table import Columns, read_table


def table(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode())
    return path


def read(tmp_path, name, content, columns=None):
    return read_table(table(tmp_path, name, content), columns or Columns())


@pytest.mark.parametrize(
    "times",
    [
        ("nan", "nan"), ("1", "NaN"), ("inf", "9"), ("1", "Infinity"), ("-2", "1"), ("-0:00:01", "2"), ("0:-1:00", "9"),
        ("3", "2"), ("2", "2"), ("noon", "9"), ("1", "1e300"), ("1_0", "20"), ("1:2:3:4", "9"), ("", "0"), ("--", "9"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_bad_times_spoil_their_own_row(tmp_path, times, kind):
    (tmp_path / "a.wav").write_bytes(b"")
    rows = [("1", "4"), times, ("10", "14.5"), ("0:00:20", "00:00:24,250")]
    if kind == "csv":
        lines = [f'{number},a.wav,"{start}","{end}"' for number, (start, end) in enumerate(rows)]
        content = "\n".join(["id,file,start,end", *lines])
    else:
        lines = [{"id": n, "file": "a.wav", "start": start, "end": end} for n, (start, end) in enumerate(rows)]
        content = "\n".join(map(json.dumps, lines))
    first, bad, third, fourth = find_clips([str(table(tmp_path, f"t.{kind}", content))], SourceOptions()).clips
    assert bad.problem.startswith("bad times: ")
    assert [(c.start, c.end, c.problem) for c in (first, third, fourth)] == [
        (1.0, 4.0, None), (10.0, 14.5, None), (20.0, 24.25, None),
    ]  # fmt: skip


def test_numbers_of_json_that_are_no_times(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    content = '{"file": "a.wav", "start": NaN, "end": 3}\n{"file": "a.wav", "start": null, "end": 3.5}\n'
    content += '{"file": "a.wav", "start": -1.5, "end": 3}\n{"file": "a.wav", "start": 1, "end": Infinity}\n'
    found = find_clips([str(table(tmp_path, "t.jsonl", content))], SourceOptions()).clips
    assert [(clip.problem or "")[:9] for clip in found] == ["bad times", "", "bad times", "bad times"]
    assert found[1].end == 3.5


OPEN = 'id\ttext\tlabel\n1\t"Hello he said\tjoy\n2\tGood bye\tanger\n3\tFine" then\tjoy\n4\tLast one\tjoy\n'


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("t.tsv", OPEN, ['"Hello he said', "Good bye", 'Fine" then', "Last one"]),
        ("t.csv", OPEN.replace("\t", ","), ['"Hello he said', "Good bye", 'Fine" then', "Last one"]),
        ("t.csv", OPEN.replace("\t", ";"), ['"Hello he said', "Good bye", 'Fine" then', "Last one"]),
        ("t.tsv", 'id\ttext\tlabel\n1\t"Hello\tjoy\n2\tBye"\tfear\n', ['"Hello', 'Bye"']),  # closed before a tab
        ("t.tsv", 'text\tlabel\n"Hello\tjoy\nBye"\tfear\n', ['"Hello', 'Bye"']),
        ("t.tsv", 'id\ttext\tlabel\n1\t"Hello\tjoy"\n2\tBye\tfear\n', ['"Hello', "Bye"]),  # within a line
        ("t.tsv", 'id\ttext\n1\tred\n2\t"to the end\n', ["red", '"to the end']),
    ],
)
def test_an_open_quote_does_not_swallow_rows(tmp_path, name, content, texts):
    found = read(tmp_path, name, content)
    assert [row["text"] for row in found.rows] == texts
    line = next(n for n, text in enumerate(content.split("\n"), 1) if '"' in text)
    assert [note.split(": ", 1)[1].split(" has")[0] for note in found.notes] == [f"line {line}"]


def test_quoted_cells_keep_their_meaning(tmp_path):
    content = 'id\ttext\tlabel\r\n1\t"two\r\nlines"\tjoy\r\n2\t"a ""word"" here"\tfear\r\n3\tsay "no"\tjoy\r\n'
    found = read(tmp_path, "t.tsv", content)
    assert [row["text"] for row in found.rows] == ["two\r\nlines", 'a "word" here', 'say "no"'] and not found.notes
    found = read(tmp_path, "t.csv", 'text,label\n"a, b\nc, d",joy\n')
    assert [row["text"] for row in found.rows] == ["a, b\nc, d"] and not found.notes


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('id,text,label\n1,"a, b",joy\n2,"open, he said,joy\n3,red" then,joy\n', 3),
        ('id,text,label\n1,"a, b",joy\n\n2,red,joy\n3,"to the end,joy\n4,blue,joy\n', 5),
        ('id,text,label\n1,"two\nlines, yes",joy\n2,"open" he said,joy,\n', 4),
    ],
)
def test_an_open_quote_among_quoted_cells_is_named(tmp_path, content, line):
    with pytest.raises(MemofastError, match=rf"t\.csv, line {line}: .*close the quote"):
        read(tmp_path, "t.csv", content)


def test_a_quoted_cell_that_holds_lines_like_rows_is_told(tmp_path):
    found = read(tmp_path, "t.csv", 'id,text,label\n0,"a, b",joy\n1,"Hello,joy\n2,Good bye,anger\n3,Fine",joy\n')
    assert len(found.rows) == 2 and ["begins in line 3" in note for note in found.notes] == [True]


def test_rows_with_too_many_cells_are_a_problem_and_with_too_few_are_told(tmp_path):
    content = "id,text,label,score\n1,red,joy,2\n2,Hello, you,joy,3\n3,blue\n4,reds,fear,high,\n".replace("high", "1")
    path = table(tmp_path, "t.csv", content)
    found = find_clips([str(path)], SourceOptions(Columns(value="score")))
    by_id = {clip.id: clip for clip in found.clips}
    assert by_id["t_0002"].problem == "bad row: line 3 has 5 cells, the header 4" and by_id["t_0002"].text is None
    assert (by_id["3"].text, by_id["3"].label, by_id["4"].label, by_id["4"].problem) == ("blue", "", "fear", None)
    assert ["1 rows have fewer cells than the header (first: line 4)" in note for note in found.notes] == [True]


def test_two_columns_of_one_name(tmp_path):
    with pytest.raises(MemofastError, match="has 2 columns 'text'; rename"):
        read(tmp_path, "t.csv", "id,text,label,text\n1,red,joy,blue\n")
    with pytest.raises(MemofastError, match="has 2 columns 'A'"):
        read(tmp_path, "t.csv", "A,text,A\n1,red,2\n", Columns(id="{A}_x"))
    assert read(tmp_path, "t.csv", "id,text,,\n1,red,,\n").rows == [{"id": "1", "text": "red"}]  # not read
    with pytest.raises(MemofastError, match="line 2: 'text' is there twice"):
        read(tmp_path, "t.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n')
    with pytest.raises(MemofastError, match="'a' is there twice"):
        read(tmp_path, "t.json", '{"a": ["red"], "a": ["blue"]}')


@pytest.mark.parametrize(
    ("header", "columns", "unread"),
    [
        ("id,audio,text,start,end", {}, "audio, start, end; read: id, text"),  # times of no file
        ("id,file,text,start,end", {}, ""),
        ("id,words,Text", {"text": "Text"}, "words; read: id, text=Text"),
        ("a,b,text,c", {"id": "{a}-{c}"}, "b; read: id={a}-{c}, text"),
        (",text,label", {}, ""),  # an index has no name
        ("text," + ",".join(f"c{n}" for n in range(10)), {}, "c0, c1, c2, c3, c4, c5, c6, c7 and 2 others; read: text"),
    ],
)
def test_columns_that_are_not_read_are_told(tmp_path, header, columns, unread):
    row = ",".join(str(n) for n in range(header.count(",") + 1))
    found = read_table(table(tmp_path, "t.csv", f"{header}\n{row}\n"), Columns(**columns))
    assert found.notes == ([f"{tmp_path / 't.csv'}: columns not read: {unread}"] if unread else [])
    objects = json.dumps([dict(zip(header.split(","), row.split(","), strict=True))])
    again = read_table(table(tmp_path, "t.json", objects), Columns(**columns))
    assert [note.replace("t.json", "t.csv") for note in again.notes] == found.notes


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    said = ["one\u2028two", "three\x85four", "five\u2029", "six"]
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in said)
    assert [row["text"] for row in read(tmp_path, "t.jsonl", content).rows] == said
    with pytest.raises(MemofastError, match=r"t\.jsonl is not valid JSON \(line 6: "):
        read(tmp_path, "t.jsonl", content + '\n{"text": }\n')
    with pytest.raises(MemofastError, match=r"not valid JSON \(line 3: "):
        read(tmp_path, "t.json", '[\n{"text": "a"},\n{"text": }]')
    with pytest.raises(MemofastError, match="line 2: nested too deep"):
        read(tmp_path, "t.jsonl", '{"text": "a"}\n' + '{"text": ' + "[" * 100_000)


def test_nan_of_json_is_nothing_and_told(tmp_path):
    content = '{"id": 1, "text": "a", "label": NaN}\n{"id": 2, "text": NaN, "label": "nan"}\n{"id": 3, "text": "nan"}\n'
    found = read(tmp_path, "t.jsonl", content)
    assert [(row["text"], row["label"]) for row in found.rows] == [("a", ""), ("", "nan"), ("nan", "")]
    assert ["NaN in 2 cells is no value" in note for note in found.notes] == [True]


def test_several_sentences_of_a_clip_are_rows_and_joined_lists_are_told(tmp_path):
    found = read(tmp_path, "t.json", '{"a": ["red", "blue"], "b": {"txt": ["now"], "label": 2}}')
    assert found.rows == [
        {"id": "a#1", "text": "red", "label": ""},
        {"id": "a#2", "text": "blue", "label": ""},
        {"id": "b", "text": "now", "label": "2"},
    ]
    found = read(tmp_path, "t.json", '[{"text": ["red", "blue"]}, {"text": ["now"]}]')
    assert [row["text"] for row in found.rows] == ["red blue", "now"]
    assert ["1 cells are lists; their parts are joined by spaces" in note for note in found.notes] == [True]


def test_names_that_differ_in_case_or_number_form_are_told_with_counts():
    labels = ["joy", "Joy", "JOY", "joy", "fear", "1", "1.0", "01", "2", "\uff11", "nan", "n a"]
    clips = [Clip(str(n), label=label) for n, label in enumerate(labels)]
    clips += [Clip("e", emotions=("Sad", "sad ")), Clip("s", split="Train"), Clip("t", split="train", group="A 1")]
    clips += [Clip("g", group="a  1"), Clip("x"), Clip("y", speaker="Ann", dialogue="1"), Clip("z", speaker="ANN")]
    clips += [Clip("v", split="None"), Clip("w", speaker="n/a")]
    notes = spelling_notes(clips)
    assert [note.split(" differ")[0].split(" is taken")[0] for note in notes] == [
        "labels '01' (1), '1' (1), '1.0' (1), '\uff11' (1)",
        "labels 'JOY' (1), 'Joy' (1), 'joy' (2)",
        "label 'nan' (1)",
        "emotions 'Sad' (1), 'sad ' (1)",
        "splits 'Train' (1), 'train' (1)",
        "split 'None' (1)",
        "groups 'A 1' (1), 'a  1' (1)",
        "speakers 'ANN' (1), 'Ann' (1)",
        "speaker 'n/a' (1)",
    ]
    assert plain_form("1.50") == plain_form("1.5") != plain_form("1.5.0") and not spelling_notes([Clip("a", label="b")])


def test_many_sets_of_names_are_counted():
    notes = spelling_notes([Clip(f"{n}{form}", group=f"{n}{form}") for n in range(1, 9) for form in ("", ".0", ".00")])
    assert len(notes) == 6 and notes[-1] == "groups differ so in 3 more sets"
    assert notes[0].startswith("groups '1' (1), '1.0' (1), '1.00' (1) differ")


def test_the_command_tells_in_report_and_on_screen(tmp_path, monkeypatch, capsys):
    from memofast.cli import run
    from memofast.prepare.command import main

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue"]))
    write_clip(tmp_path / "a.wav", 3.0, picture=False, codec="pcm_s16le")
    rows = 'a\tx,a.wav,0,1,red,joy,s1\nb,a.wav,nan,2,,Joy,"s\t2"\nc,a.wav,1,2.5,blue,,s1\n'
    path = table(tmp_path, "t [1].csv", "id,file,start,end,text,label,who\n" + rows)
    arguments = [path, "--out", tmp_path / "c", "--vocab", tmp_path / "vocab.txt", "-c", "group=who"]
    arguments += ["--workers", "1", "--voice", "none"]
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run(main, "prepare")
    told = capsys.readouterr().err
    assert not ended.value.code and "note: labels 'Joy' (1), 'joy' (1) differ in case" in told
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    assert report["notes"] == [line.removeprefix("note: ") for line in told.split("\n") if "labels 'Joy'" in line]
    assert report["problems"]["bad times"]["clips"] == [{"id": "b", "detail": "'nan' is not a time"}]
    corpus = Corpus.open(tmp_path / "c")
    assert read_groups(corpus, "group") == {"a\tx": "s1", "c": "s1"}
    seconds = {id: corpus.stores["speech"].read(id)["times"][-1] for id in ("a\tx", "c")}
    assert seconds["a\tx"] < 1 < seconds["c"] < 1.5


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "a\nb", "x" * 201, "a\\b"])
def test_splits_that_cannot_name_a_file(name):
    with pytest.raises(MemofastError, match="cannot name a file"):
        check_split_names(["train", name])
    check_split_names(["train", "\u6f22 1"])


def test_rows_without_a_split_are_told(tmp_path):
    path = table(tmp_path, "t.csv", "text,part\nred,train\nblue,\nred,test\n")
    found = find_clips([str(path)], SourceOptions(split_column="part"))
    assert ["1 of 3 rows name no split" in note for note in found.notes] == [True]


def test_label_patterns_that_find_nothing_are_told(tmp_path):
    for name in ("a_joy.wav", "b_sad.wav", "c.wav"):
        (tmp_path / name).write_bytes(b"")
    found = find_clips([str(tmp_path)], SourceOptions(label_pattern=r"_(\w+)$"))
    assert [clip.label for clip in found.clips] == ["joy", "sad", None]
    assert found.notes == ["--label-pattern finds no label in 1 of 3 ids (first: c)"]

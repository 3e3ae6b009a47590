import json

import pytest

from memofast.errors import MemofastError
from memofast.prepare.sources.clips import SourceOptions, read_sources
from memofast.prepare.sources.splits import assign_splits, parse_fractions
from memofast.prepare.sources.table import Columns, parse_columns


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_folder_pairs_files_and_cuts_by_cues(tmp_path):
    touch(tmp_path / "s1" / "a.mp4")
    (tmp_path / "s1" / "a.srt").write_text("0:00:01,0 --> 0:00:02,0\none\n\n0:00:03,0 --> 0:00:04,0\ntwo\n")
    touch(tmp_path / "b.mp4")
    touch(tmp_path / "b.wav")
    touch(tmp_path / "c.flac")
    (tmp_path / "c.align").write_text("0 10 sil\n10 20 red\n")
    touch(tmp_path / "notes.txt")
    clips = {clip.id: clip for clip in read_sources([str(tmp_path)], SourceOptions())}
    assert list(clips) == ["b", "c", "s1/a_0001", "s1/a_0002"]
    assert (clips["b"].picture.name, clips["b"].sound.name) == ("b.mp4", "b.wav")
    assert clips["c"].picture is None and clips["c"].text == "red"
    second = clips["s1/a_0002"]
    assert (second.start, second.end, second.text, second.folder) == (3.0, 4.0, "two", "s1")


def test_two_videos_of_one_name_are_two_clips(tmp_path):
    touch(tmp_path / "a.mp4"), touch(tmp_path / "a.mov")
    assert [clip.id for clip in read_sources([str(tmp_path)], SourceOptions())] == ["a.mov", "a.mp4"]


def test_malformed_sidecar_is_a_problem_of_its_clip(tmp_path):
    touch(tmp_path / "a.mp4"), touch(tmp_path / "b.mp4")
    (tmp_path / "a.align").write_text("not an alignment\n")
    bad, good = read_sources([str(tmp_path)], SourceOptions())
    assert bad.problem.startswith("bad timings: ") and good.problem is None


def test_table_columns_templates_and_times(tmp_path):
    touch(tmp_path / "media" / "x.mp4")
    table = tmp_path / "t.csv"
    table.write_bytes(
        "Dialogue;U;Said;Feeling;file;start;end;part\n0;1;I don\u2019t;joy;x.mp4;00:00:01,500;2;train\n"
        "0;2;no file;anger;y.mp4;;;test\n0;3;backwards;anger;x.mp4;3;2;test\n0;4;odd time;;x.mp4;noon;2;test\n".encode(
            "cp1252"
        )
    )
    columns = parse_columns(["text=Said", "label=Feeling", "id=d{Dialogue}_u{U}"])
    options = SourceOptions(columns, tmp_path / "media", split_column="part")
    one, two, three, four = read_sources([str(table)], options)
    assert (one.id, one.text, one.label, one.start, one.end) == ("d0_u1", "I don\u2019t", "joy", 1.5, 2.0)
    assert one.split == "train" and one.picture == tmp_path / "media" / "x.mp4"
    assert two.problem.startswith("missing file: ") and two.text == "no file"
    assert three.problem.startswith("bad times: ") and four.problem.startswith("bad times: ")


def test_json_tables(tmp_path):
    captions = tmp_path / "ref_captions.json"
    captions.write_text(json.dumps({"m_1": ["Hello you"], "m_2": {"txt": ["Bye"], "label": 3}}))
    clips = read_sources([str(captions)], SourceOptions())
    assert [(clip.id, clip.text, clip.label) for clip in clips] == [("m_1", "Hello you", ""), ("m_2", "Bye", "3")]
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert [clip.id for clip in read_sources([str(lines)], SourceOptions())] == ["rows_0001", "rows_0002"]


def test_named_sources_and_clashing_ids(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("id,text\n1,hello\n")
    first, second = read_sources([f"train={tmp_path}/one.csv", f"dev={tmp_path}/two.csv"], SourceOptions())
    assert (first.id, first.split, second.id, second.split) == ("one/1", "train", "two/1", "dev")


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("", Columns(), "no rows"),
        ("id,text\n", Columns(), "no rows"),
        ("id,words\n1,hello\n", Columns(), "neither a file nor a text column"),
        ("id,wo\frds\n1,hello\n", Columns(), r"it has id, wo.x0crds: name one, e.g. --column text=wo.x0crds"),
        ("id,text\n1,hello\n", Columns(label="Emotion"), "no column 'Emotion'"),
        ("id,text\n1,hello\n1,again\n", Columns(), "more than once"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, content, columns, message):
    table = tmp_path / "t.csv"
    table.write_text(content)
    with pytest.raises(MemofastError, match=message):
        read_sources([str(table)], SourceOptions(columns))


def test_sources_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.json").write_text("{broken")
    touch(tmp_path / "t.xlsx")
    cases = {"missing": "no file", "empty": "nothing to prepare", "t.json": "not valid JSON", "t.xlsx": "no table"}
    for name, message in cases.items():
        with pytest.raises(MemofastError, match=message):
            read_sources([str(tmp_path / name)], SourceOptions())
    with pytest.raises(MemofastError, match="field of id"):
        parse_columns(["words=Text"])
    with pytest.raises(MemofastError, match="no group"):
        read_sources([str(tmp_path)], SourceOptions(label_pattern="abc"))


def test_splits_by_hash_stay_when_clips_come_and_keep_folders_together(tmp_path):
    for speaker in range(20):
        for number in range(10):
            touch(tmp_path / f"s{speaker}" / f"{number}.wav")
    clips = read_sources([str(tmp_path)], SourceOptions())
    fractions = parse_fractions(["validation=0.2", "test=0.1"])
    splits = assign_splits(clips, fractions, split_by="id")
    assert sum(map(len, splits.values())) == 200 and 20 <= len(splits["validation"]) <= 60
    fewer = assign_splits(clips[::2], fractions, split_by="id")
    assert set(fewer["test"]) == set(splits["test"]) & {clip.id for clip in clips[::2]}
    by_folder = assign_splits(clips, fractions, split_by="folder")
    homes = {id.split("/")[0]: name for name, ids in by_folder.items() for id in ids}
    assert all(homes[id.split("/")[0]] == name for name, ids in by_folder.items() for id in ids)
    for wrong in (["validation"], ["validation=2"], ["train=0.5"], ["a=0.6", "b=0.5"]):
        with pytest.raises(MemofastError):
            parse_fractions(wrong)

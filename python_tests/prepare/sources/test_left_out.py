"""Every file of a folder becomes a clip or is named with its reason, whatever it is called and whatever it is."""

import json
import os
import socket
import sys

import pytest
from media import write_clip

from memofast.data.corpus import Corpus
from memofast.errors import MemofastError
from memofast.pages.inspect.page import write_page
from memofast.prepare.sources.clips import SourceOptions, find_clips
from memofast.prepare.sources.folders import LEFT_OUT, is_regular, one_line, walk


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def reasons(found):
    return sorted((entry.file.rsplit("/", 1)[1], entry.reason) for entry in found.left_out)


def prepare(monkeypatch, *arguments):
    from memofast.cli import run
    from memofast.prepare.command import main

    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments), "--workers", "1", "--voice", "none"])
    with pytest.raises(SystemExit) as ended:
        run(main, "prepare")
    return ended.value.code or 0


def test_what_is_no_media_is_named_by_kind(tmp_path):
    folder, elsewhere = tmp_path / "films", tmp_path / "elsewhere"
    touch(elsewhere / "linked.mp4")
    hidden = (".b.mp4", ".trash/c.wav", ".trash/x.bin", ".git/HEAD")
    for name in ("a.mp4", "notes.txt", "README", "a.smi", "t.csv", *hidden):
        touch(folder / name)
    (folder / "link").symlink_to(elsewhere)
    (folder / "same.mp4").symlink_to(elsewhere / "linked.mp4")
    (folder / "gone.mp4").symlink_to(elsewhere / "gone.mp4")
    os.mkfifo(folder / "pipe.wav")
    listening = socket.socket(socket.AF_UNIX)
    monkey = os.getcwd()
    os.chdir(folder)  # the path of a socket has at most 107 bytes
    try:
        listening.bind("s.wav")
    finally:
        os.chdir(monkey)
        listening.close()
    found = find_clips([str(folder)], SourceOptions())
    assert [clip.id for clip in found.clips] == ["a", "same"]
    assert reasons(found) == sorted(
        [
            ("notes.txt", "unknown suffix"),
            ("README", "unknown suffix"),
            ("a.smi", "subtitles not read"),
            ("t.csv", "table"),
            (".b.mp4", "hidden"),
            ("c.wav", "hidden"),
            (".trash", "hidden"),
            (".git", "hidden"),
            ("link", "linked folder"),
            ("gone.mp4", "broken link"),
            ("pipe.wav", "no regular file"),
            ("s.wav", "no regular file"),
        ]
    )
    assert {entry.reason for entry in found.left_out} <= LEFT_OUT.keys()
    details = {entry.file.rsplit("/", 1)[1]: entry.detail for entry in found.left_out}
    assert details["link"] == str(elsewhere) and details[".trash"] == "a folder of 1 other files"
    assert details["s.wav"] == "a socket" and details["pipe.wav"] == "a FIFO"


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "a.wav"), touch(tmp_path / "shut" / "b.wav")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files, missed = walk(tmp_path, {".wav"})
    assert [path.name for path in files] == ["a.wav"]
    assert [(entry.file, entry.reason, entry.detail) for entry in missed] == [
        (str(tmp_path / "shut"), "cannot be read", "Permission denied")
    ]


@pytest.mark.parametrize("name", ["a.mts", "a.M2TS", "a.vob", "a.asf", "a.mka", "a.oga", "a.aiff", "a.AMR", "a.aif"])
def test_suffixes_of_cameras_discs_and_telephones_are_media(tmp_path, name):
    touch(tmp_path / name)
    (clip,) = find_clips([str(tmp_path)], SourceOptions()).clips
    assert clip.id == "a" and clip.sound.name == name
    assert (clip.picture is None) == (name.lower() not in ("a.mts", "a.m2ts", "a.vob", "a.asf"))


def test_a_fifo_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(MemofastError, match="FIFO"):
        find_clips([str(tmp_path / "a.wav")], SourceOptions())
    with pytest.raises(MemofastError, match=r"nothing to prepare .1 no regular file left out"):
        find_clips([str(tmp_path)], SourceOptions())


def test_files_with_odd_names_are_lines_of_the_report_and_the_others_are_prepared(tmp_path, monkeypatch):
    folder = tmp_path / "source"
    deep = folder.joinpath(*["\u6f22" * 60] * 3)
    for directory in (folder, deep):
        directory.mkdir(parents=True, exist_ok=True)
    names = ["plain.wav", "new\nline.wav", "a\u2028b.wav", "c\x85d.wav", "e\x0cf.wav", "g\rh.wav", "i\tj.wav"]
    paths = [os.fsencode(folder / name) for name in names]
    paths += [os.fsencode(folder) + b"/k\xffl.wav", os.fsencode(deep / "long.wav")]
    write_clip(tmp_path / "one.wav", 0.5, picture=False, codec="pcm_s16le")
    for path in paths:
        with open(path, "wb") as file:
            file.write((tmp_path / "one.wav").read_bytes())
    out = tmp_path / "c"
    assert prepare(monkeypatch, folder, "--out", out, "--split", "validation=0.5") == 0
    told = json.loads((out / "report.json").read_text(encoding="utf-8"))["left_out"]
    assert told.keys() == {"odd name"} and told["odd name"]["count"] == 3
    listed = {entry["file"].rsplit("/", 1)[1]: entry["detail"] for entry in told["odd name"]["files"]}
    assert listed == {
        "new\\nline.wav": "it has a line break",
        "k\\xffl.wav": "it is no UTF-8",
        "long.wav": "it has 547 bytes",
    }
    corpus = Corpus.open(out)
    ids = {id for split in corpus.splits for id in corpus.split(split).ids}
    assert ids == {"plain", "a\u2028b", "c\x85d", "e\x0cf", "g\rh", "i\tj"}


def test_a_folder_whose_own_name_is_no_utf8(tmp_path, monkeypatch):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/s\xff")
    os.mkdir(folder)
    write_clip(tmp_path / "a.wav", 0.5, picture=False, codec="pcm_s16le")
    os.rename(tmp_path / "a.wav", os.path.join(folder, "a.wav"))
    out = tmp_path / "c"
    assert prepare(monkeypatch, folder, "--out", out, "--split-by", "file") == 0
    (source,) = [json.loads(line)["source"] for line in (out / "progress.jsonl").read_text().split("\n") if line]
    assert source["sound"] == os.path.join(folder, "a.wav")
    write_page(Corpus.open(out), tmp_path / "p.html", 1, 0, None)
    assert "s\\udcff/a.wav" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_rows_with_odd_ids_and_characters_are_lines_of_the_report(tmp_path):
    rows = [{"id": "a\nb", "text": "one"}, {"id": "x" * 512, "text": "two"}, {"id": "c", "text": "half \ud83d"}]
    rows += [
        {"id": "d", "text": "fine", "label": "\ud83d"},
        {"id": "e", "text": "good"},
        {"id": "y" * 511, "text": "z"},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    found = find_clips([str(tmp_path / "t.json")], SourceOptions())
    assert [clip.id for clip in found.clips] == ["e", "y" * 511]
    assert [(entry.reason, entry.detail[:12]) for entry in found.left_out] == [
        ("odd name", "a\\nb: it has"),
        ("odd name", "x" * 12),
        ("odd characters", "c"),
        ("odd characters", "d"),
    ]


def test_names_on_one_line():
    assert one_line("a\u2028b\rc\x85") == "a\\u2028b\\rc\\x85"
    assert one_line(os.fsdecode(b"k\xffl")) == "k\\xffl"
    assert one_line("half \ud83d") == "half \\ud83d"
    assert one_line("\u6f22 \u00e9") == "\u6f22 \u00e9"


def test_names_that_no_file_can_have(tmp_path):
    assert not is_regular(tmp_path / ("x" * 5000)) and not is_regular(tmp_path / "a\0b")
    (tmp_path / "t.csv").write_text("id,file\n1," + "x" * 5000 + "\n")
    (clip,) = find_clips([str(tmp_path / "t.csv")], SourceOptions()).clips
    assert clip.problem.startswith("missing file: ")
    for name in ("x" * 5000, "a\0b", "train=" + "x" * 5000):
        with pytest.raises(MemofastError, match="no file or folder"):
            find_clips([name], SourceOptions())

"""Files that are whole or not there, and what a file is not: a pointer in place of its contents, brackets without end,
formulas in a table."""

import csv
import errno
import io
import os
from pathlib import Path

import pytest

from memofast import files
from memofast.errors import MemofastError
from memofast.files import NestedTooDeeply, csv_table, read_json, refuse_pointer, replace_file, reserve, temporary_of


def test_pointers_of_git_lfs(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 437951328\n")
    with pytest.raises(MemofastError, match=r"model.safetensors is a Git LFS pointer, not the file of 437951328 bytes"):
        refuse_pointer(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(MemofastError, match="not the file that it stands for"):
        refuse_pointer(path)
    path.write_text("versions of it")
    refuse_pointer(path)
    refuse_pointer(tmp_path / "none")
    refuse_pointer(tmp_path)


def test_json_nested_without_end(tmp_path):
    for text in ("[" * 200_000, '{"a":' * 200_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(NestedTooDeeply):
            read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"é": [1]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"é": [1]}


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\uff1d1",
        "-- yes",
        "+5",
        "-",
        "-0x1",
        "-1.5.2",
    ],
)
def test_cells_that_a_spreadsheet_would_run(cell):
    ((read, other),) = csv.reader(io.StringIO(csv_table([[cell, "x"]]), newline=""))
    assert (read, other) == (f"'{cell}", "x")


def test_other_cells_are_as_they_were():
    rows = [["-0.25", -0.25, "-3", "-1e-05", "", None], ["a=b", 'say "x"', "a,b", "a\rb", "a\nb", "'quoted"]]
    table = csv_table(rows)
    assert table.splitlines()[0] == "-0.25,-0.25,-3,-1e-05,,"
    assert '"a\rb"' in table and '"a\nb"' in table and table.endswith("'quoted\n") and "\r\n" not in table
    read = list(csv.reader(io.StringIO(table, newline="")))
    assert read == [["-0.25", "-0.25", "-3", "-1e-05", "", ""], rows[1]]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("where", ["open", "fsync", "replace"])
def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch, code, where):
    def fails(*_):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "page.html"
    replace_file(path, b"old")
    if where == "open":
        monkeypatch.setattr(files, "open", fails, raising=False)
    else:
        monkeypatch.setattr(os, where, fails)
    if code == errno.EROFS:
        monkeypatch.setattr(Path, "unlink", fails)  # cleaning up fails as well
    with pytest.raises(MemofastError, match=rf"page.html cannot be written \({os.strerror(code)}\): free space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    monkeypatch.undo()
    if code != errno.EROFS:
        assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_while_a_file_is_written_leaves_nothing_beside_it(tmp_path, monkeypatch):
    def interrupted(*_):
        assert temporary_of(tmp_path / "a.json").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "a.json", b"1")
    assert list(tmp_path.iterdir()) == []


def test_the_room_of_a_memory_map_is_taken_before_it_is_written(tmp_path, monkeypatch):
    path = tmp_path / "rows.npy"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    reserve(path)
    assert path.stat().st_blocks * 512 >= 1 << 20 and path.stat().st_size == 1 << 20

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        reserve(path)


def test_files_below_a_folder_are_found_while_others_come_and_go(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_bytes(b"123")
    (tmp_path / "a" / "nowhere").symlink_to("gone")
    (tmp_path / "a" / "folder").symlink_to("b")
    (tmp_path / "a" / "c").mkdir()
    found = dict(files.files_below(tmp_path))
    assert {str(path.relative_to(tmp_path)) for path in found} == {"a/b/one", "a/nowhere", "a/folder"}
    assert found[tmp_path / "a" / "b" / "one"].st_size == 3
    listed = [(str(tmp_path / "a"), ["c"], ["gone", "nowhere"]), (str(tmp_path / "away"), [], ["x"])]
    monkeypatch.setattr(files.os, "walk", lambda folder: iter(listed))
    assert [path.name for path, _ in files.files_below(tmp_path)] == ["nowhere"]

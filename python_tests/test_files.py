"""What a file is not: a pointer in place of its contents, brackets without end, formulas in a table."""

import csv
import io

import pytest

from memofast.errors import MemofastError
from memofast.files import NestedTooDeeply, csv_table, read_json, refuse_pointer


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

"""C++ and CUDA keep to the width that pyproject.toml declares for Python, where ruff sees to it."""

import tomllib

import pytest

SUFFIXES = {".h", ".cuh", ".cpp", ".cu"}


def too_wide(folder, width):
    """`file:line` of every line of more than `width` columns."""
    for file in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if len(line) > width:
                yield f"{file.relative_to(folder).as_posix()}:{number}"


def test_lines_keep_to_the_width(csrc):
    width = tomllib.loads((csrc.parent / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    for folder in (csrc, csrc.parent / "python_tests"):
        assert list(too_wide(folder, width)) == []


@pytest.mark.parametrize("file", ["a.h", "cuda/b.cuh", "cpu/c.cpp", "cuda/d.cu"])
def test_a_line_too_wide_is_found(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("// é" + 7 * "x" + "\n" + 12 * "x" + "\n" + 11 * "y")
    assert list(too_wide(tmp_path, 11)) == [f"{file}:2"]

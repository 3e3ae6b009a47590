"""Every Python file passes the linter and the formatter, as pyproject.toml sets them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKS = [("check",), ("format", "--check")]
pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.py").exists(), reason="needs the source folder that these tests come from"
)


def ruff(*command: str, folder: Path) -> subprocess.CompletedProcess:
    # without the cache the checkout stays as it is, and nothing remembered passes for checked
    return subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("command", CHECKS, ids=" ".join)
def test_the_sources_pass(command):
    done = ruff(*command, folder=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "failing"),
    [
        ("# xx" + 58 * " x" + "\n", None),
        ("# xxx" + 58 * " x" + "\n", "check"),
        ("import os\n", "check"),
        ("found = [1,2]\n", "format"),
        ("found = 'single'\n", "format"),
    ],
    ids=["120 columns", "121 columns", "unused", "spaces", "quotes"],
)
def test_what_passes_and_what_does_not(tmp_path, line, failing):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "module.py").write_text(line)
    done = {command[0]: ruff(*command, folder=tmp_path) for command in CHECKS}
    assert {name for name, one in done.items() if one.returncode} == ({failing} if failing else set())
    assert all(one.returncode in (0, 1) for one in done.values()), done  # 2: ruff itself failed

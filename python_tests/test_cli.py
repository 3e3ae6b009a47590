"""The program `memofast`: every command by name, mistakes in one line with exit code 2."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memofast import cli
from memofast.errors import MemofastError
from memofast.version import __version__

COMMANDS = [name.replace("_", "-") for name in cli._COMMANDS]


def memofast(*arguments: str) -> subprocess.CompletedProcess:
    program = "from memofast.cli import main; main()"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = memofast(command, "--help")
    assert result.returncode == 0, result.stderr
    assert f"memofast {command}" in result.stdout


def test_every_command_is_found_by_one_rule():
    """`python -m memofast.NAME` is `memofast NAME`: a file at the top level, or a folder with `__main__.py` and
    `command.py`."""
    package = Path(cli.__file__).parent
    for name in cli._COMMANDS:
        home = package / name
        files = [home / "__main__.py", home / "command.py"] if home.is_dir() else [home.with_suffix(".py")]
        assert all(file.is_file() for file in files), name
        assert callable(cli.command_module(name).main)
        assert 'run(main, "' in files[0].read_text(), name
    assert cli.command_module("prepare").__name__ == "memofast.prepare.command"
    assert cli.command_module("info").__name__ == "memofast.info"


@pytest.mark.parametrize("module", ["denseface", "normalise", "import_features", "import_npz", "download", "evaluate"])
def test_a_command_runs_as_a_module(module):
    ran = subprocess.run([sys.executable, "-m", f"memofast.{module}", "--help"], capture_output=True, text=True)
    assert ran.returncode == 0 and "Usage" in ran.stdout, ran.stderr


def test_version_and_usage():
    assert memofast("--version").stdout.strip() == f"memofast {__version__}"
    usage = memofast()
    assert usage.returncode == 2 and "pretrain" in usage.stdout


def test_unknown_command_names_the_known_ones():
    result = memofast("pretrian")
    assert result.returncode == 2
    assert "pretrain" in result.stderr and "Traceback" not in result.stderr


def _mistaken() -> None:
    raise MemofastError("corpus nowhere is not there; give another folder")


def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["memofast"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(_mistaken, "memofast test")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "memofast test: corpus nowhere is not there; give another folder\n"


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["memofast", "--debug"])
    with pytest.raises(MemofastError):
        cli.run(_mistaken, "memofast test")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_anywhere_unwinds_and_gives_its_code(monkeypatch, tmp_path, number, code):
    def interrupted() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            (tmp_path / "left in order").touch()

    before = signal.getsignal(signal.SIGTERM)
    # a shell's background jobs begin by ignoring it
    of_ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(sys, "argv", ["memofast"])
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.run(interrupted, "memofast test")
    finally:
        signal.signal(signal.SIGINT, of_ctrl_c)
    assert stopped.value.code == code
    assert list(tmp_path.iterdir()) and signal.getsignal(signal.SIGTERM) == before


def test_brackets_without_end_are_one_line(monkeypatch, capsys):
    def read() -> None:
        json.loads("[" * 200_000)

    monkeypatch.setattr(sys, "argv", ["read"])
    with pytest.raises(SystemExit) as ended:
        cli.run(read, "read")
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "read: a file is nested too deeply" in told and len(told.splitlines()) == 1

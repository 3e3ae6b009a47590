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

COMMANDS = list(cli.COMMANDS)


def memofast(*arguments: str) -> subprocess.CompletedProcess:
    program = "from memofast.cli import main; main()"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("command", [*COMMANDS, "emotion-text train", "denseface train", "denseface show"])
def test_every_command_explains_itself(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["memofast", *command.split(), "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().out
    assert ended.value.code == 0 and f"Usage: memofast {command} " in told
    assert max(map(len, told.splitlines())) <= 80
    assert "--vocabulary" not in told


def test_square_brackets_of_a_help_text_are_shown(monkeypatch, capsys):
    for command, shown in {"prepare": "FOLDER[,language=en][,beam=5]", "pretrain": "[KEY=VALUE]"}.items():
        monkeypatch.setattr(sys, "argv", ["memofast", command, "--help"])
        with pytest.raises(SystemExit):
            cli.main()
        assert shown in "".join(capsys.readouterr().out.split())


def test_the_program_describes_every_command_and_imports_none():
    code = "import sys\nfrom memofast import cli\ntry: cli.main()\nfinally: print(sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    help, modules = result.stdout.split("['", 1)
    assert "--version" in help and "--install-completion" in help and max(map(len, help.splitlines())) <= 80
    described = {line.split()[0]: line.split(None, 1)[1] for line in help.splitlines() if line.startswith("  ")}
    assert all(described[name] == cli.COMMANDS[name] for name in COMMANDS)
    assert not {"torch", "numpy", "rich", "pydantic"} & set(modules.replace("'", "").rstrip("]\n").split(", "))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("memofast pre", {"prepare", "pretrain", "predict"}),
        ("memofast prepare --vo", {"--vocab", "--voice"}),
        ("memofast emotion-text train --val", {"--validation", "--validate-on", "--validations"}),
        ("memofast denseface s", {"show"}),
    ],
)
def test_a_shell_completes_commands_and_options(monkeypatch, capsys, words, found):
    asked = {"_MEMOFAST_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and set(capsys.readouterr().out.split("\n")[:-1]) == found


def test_every_command_is_found_by_one_rule():
    """`python -m memofast.NAME` is `memofast NAME`: a file at the top level, or a folder with `__main__.py` and
    `command.py`."""
    package = Path(cli.__file__).parent
    for name in cli.COMMANDS:
        home = package / name.replace("-", "_")
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


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pretrian", "memofast: no command 'pretrian'; did you mean pretrain?; memofast --help describes them"),
        ("--verzion", "memofast: No such option: --verzion"),
        ("import-npz --vocabulary v", "memofast import-npz: No such option: --vocabulary (Possible options: --vocab"),
        ("extract model", "memofast extract: Missing option '--corpus'"),
        ("emotion-text tarin", "memofast emotion-text: No such command 'tarin'"),
        ("emotion-text train --init a", "memofast emotion-text train: Missing argument"),
        ("prepare a --out b --workers many", "memofast prepare: Invalid value for '--workers'"),
    ],
)
def test_a_wrong_line_is_told_in_one(monkeypatch, capsys, line, told):
    monkeypatch.setattr(sys, "argv", ["memofast", *line.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    (said,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and said.startswith(told)


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_anywhere_unwinds_and_gives_its_code(monkeypatch, tmp_path, capsys, number, code):
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
    told = "interrupted" if code == 130 else f"ended by {signal.Signals(number).name}"
    assert capsys.readouterr().err == f"memofast test: {told}\n"


def test_brackets_without_end_are_one_line(monkeypatch, capsys):
    def read() -> None:
        json.loads("[" * 200_000)

    monkeypatch.setattr(sys, "argv", ["read"])
    with pytest.raises(SystemExit) as ended:
        cli.run(read, "read")
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "read: a file is nested too deeply" in told and len(told.splitlines()) == 1


def _surrogate() -> None:
    "\udce9".encode()


def _nested() -> None:
    _nested()


def _missing() -> None:
    Path("/nowhere/x.json").read_bytes()


def _raise(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (_raise(ZeroDivisionError("by\nzero")), 1, "a fault of memofast, ZeroDivisionError: by; run it again with"),
        (_raise(KeyError("widths")), 1, "a fault of memofast, KeyError: 'widths'; run it again with --debug"),
        (_raise(MemoryError()), 2, "memory is full"),
        (_raise(RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes")), 2, "memory is full"),
        (_raise(RuntimeError("x: No space left on device")), 2, "x: No space left on device; free space"),
        (_raise(ModuleNotFoundError("No module named 'cv2'")), 2, "No module named 'cv2'; `memofast info` says"),
        (_nested, 2, "a file is nested too deeply"),
        (_missing, 2, "/nowhere/x.json: No such file or directory; check the path"),
        (_surrogate, 2, "'\\udce9' cannot be written in utf-8; set PYTHONUTF8=1"),
        (_raise(MemofastError("one\ntwo")), 2, r"one\ntwo"),
    ],
)
def test_whatever_escapes_is_one_line(monkeypatch, capsys, command, code, told):
    monkeypatch.setattr(sys, "argv", ["memofast"])
    with pytest.raises(SystemExit) as ended:
        cli.run(command, "memofast test")
    (said,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == code and said.startswith(f"memofast test: {told}")


@pytest.mark.parametrize("command", ["--version", "--help"])
def test_a_pipe_that_nobody_reads_ends_quietly(command):
    read, write = os.pipe()
    os.close(read)
    program = [sys.executable, "-c", "from memofast.cli import main; main()", command]
    result = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_full_disk_under_stdout_is_told():
    program = [sys.executable, "-c", "from memofast.cli import main; main()", "--help"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2 and "No space left on device" in result.stderr and result.stderr.count("\n") == 1


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path):
    program = [sys.executable, "-c", "from memofast.cli import main; main()"]
    ascii = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"} | ascii
    result = subprocess.run([*program, "import-npz", "--help"], capture_output=True, env=environment)
    assert result.returncode == 0 and b"Usage" in result.stdout and result.stderr == b"", result.stderr
    named = os.fsencode(tmp_path) + "/caf\u00e9".encode()
    os.mkdir(named)
    fetched = ["download", "yunet", "--url", "file:///nowhere", "--out", named + b"/x"]
    result = subprocess.run([*program, *fetched], capture_output=True, env=environment)
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1, result.stderr
    code = (
        "import sys; from memofast import cli; given = sys.argv.pop(); cli.run(lambda: print(given, chr(0x4f60)), 'x')"
    )
    result = subprocess.run([sys.executable, "-c", code, named], capture_output=True, env=environment)
    assert result.returncode == 0 and result.stdout.endswith(b"/caf\\udcc3\\udca9 \\u4f60\n"), result

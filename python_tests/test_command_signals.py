"""Ctrl-C, SIGTERM and SIGHUP: unwound, or ended at once in an import, with one line and 128 + the signal."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from memofast import signals
from memofast.signals import Ending, Stopped, held

SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.{})
    sum(range(1000))
except BaseException:
    pass
print("imported", flush=True)
"""


@pytest.fixture(autouse=True)
def heeded():
    """Background jobs of a shell ignore Ctrl-C from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def swallower(tmp_path, monkeypatch):
    """Name of a module that is sent a signal while it is imported and swallows whatever is raised."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str) -> str:
        (tmp_path / f"swallows_{name}.py").write_text(SWALLOWS.format(name))
        return f"swallows_{name}"

    return make


def test_an_import_swallows_nothing(swallower):
    module = swallower("SIGINT")
    with pytest.raises(KeyboardInterrupt), Ending("memofast"), held("a folder"):
        __import__(module)
        time.sleep(20)
    module = swallower("SIGHUP")
    with pytest.raises(Stopped) as ended, Ending("memofast"), held("a folder"):
        __import__(module)  # the last thing it does
    assert ended.value.code == 129
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_import_of_a_program_that_holds_nothing_ends_at_once(swallower, tmp_path, name):
    module = swallower(name)
    code = f"from memofast import cli; cli.command_module = lambda _: __import__({module!r}); cli.main()"
    result = subprocess.run([sys.executable, "-c", code, "info"], capture_output=True, text=True, cwd=tmp_path)
    told = {"SIGINT": "interrupted"}.get(name, f"ended by {name}")
    assert (result.returncode, result.stderr) == (128 + getattr(signal, name), f"memofast info: {told}\n")
    assert result.stdout == ""


@pytest.mark.parametrize("started", ["['/usr/bin/memofast', 'info']", "['-m']"])
def test_a_program_that_still_starts_ends_with_one_line(started):
    code = (
        f"import os, signal, sys; sys.argv[:] = {started}; sys.orig_argv[1:3] = ['-m', 'memofast.pretrain']\n"
        "import memofast; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(20)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (130, "memofast: interrupted\n")


def test_a_python_that_imports_memofast_keeps_its_handlers():
    code = "import signal, memofast; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_a_bounce_is_no_second_signal_and_a_second_ends_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "_exit_now", lambda name, number: ended.append((name, number)))
    with pytest.raises(Stopped), Ending("memofast x"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # raises nothing in what puts things in order
            assert ended == []
            monkeypatch.setattr(signals, "_BOUNCE", -1.0)
            os.kill(os.getpid(), signal.SIGHUP)
            assert ended == [("memofast x", signal.SIGHUP)]


def test_what_a_library_made_another_error_of_is_raised_again():
    with pytest.raises(Stopped), Ending("memofast"):
        with suppress(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("an object that the library cannot read")
    with pytest.raises(OSError, match="full"), Ending("memofast"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise OSError("the disk is full")  # what was to be kept is not
    with pytest.raises(SystemExit) as ended, Ending("memofast"):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
    assert ended.value.code == 130 and not isinstance(ended.value, Stopped)


def test_what_is_ignored_from_the_start_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending("memofast"):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

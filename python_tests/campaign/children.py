"""Commands in forked children of one warm process: how they end, what they say, and no process of theirs left."""

import ctypes
import faulthandler
import fcntl
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEMORY = 60, 2 << 30
PATIENCE = 10  # seconds for the processes of a child to end after it
_BEYOND = 3 << 30  # address space that a child may add, so that a bomb ends itself and not the machine
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Ended:
    """code: exit code, or minus the signal. peak: bytes resident at most. survivors: processes of its group that
    outlived it by 10 s."""

    code: int
    out: str
    error: str
    seconds: float
    peak: int
    timed_out: bool
    survivors: bool

    def fault(self, codes: Iterable[int] = (0, 2)) -> str | None:
        """What is wrong with how it ended; None: nothing. A mistake, code 2, is told in one line of its own."""
        lines = [line for line in self.error.splitlines() if line.strip()]
        last = lines[-1] if lines else "no word"
        told = [line for line in lines if line.startswith("memofast ")]
        if self.timed_out:
            return f"runs for more than {SECONDS} s"
        if self.code < 0 and self.code not in codes:
            return f"ends by {signal.Signals(-self.code).name}: {_where(lines)}"
        if "Traceback (most recent call last)" in self.error:
            return f"traceback: {last}"
        if self.code not in codes:
            return f"exit code {self.code}: {last}"
        if self.code == 2 and (len(told) != 1 or told != lines[-1:]) and not self.error.startswith("Usage:"):
            return f"{len(told)} lines told at exit code 2, the last {last!r}"
        if self.peak > MEMORY:
            return f"takes {self.peak >> 20} MiB"
        if self.survivors:
            return "processes survive it"
        return None


def _where(lines: list[str]) -> str:
    """The innermost line of ours in what faulthandler wrote."""
    return next((line.strip() for line in lines if "/memofast/" in line), lines[-1] if lines else "no word")


def adopt(orphans: bool = True) -> None:
    """Let this process reap what its children leave behind (Linux), and no child write a core file."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@dataclass
class Started:
    """A child that runs."""

    pid: int
    began: float
    out: int
    error: int

    def send(self, number: int, group: bool = False) -> None:
        os.killpg(self.pid, number) if group else os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds. It is reaped by `end` alone, so that its number stays its own."""
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], max(seconds, 0))[0])
        finally:
            os.close(descriptor)

    def end(self, seconds: float = SECONDS) -> Ended:
        """Wait until it ended, at most so long."""
        timed_out = not self.wait(seconds)
        if timed_out:
            os.killpg(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        took = time.monotonic() - self.began
        survivors = not timed_out and not _group_ends(self.pid)
        said = [_drained(descriptor) for descriptor in (self.out, self.error)]
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, *said, took, usage.ru_maxrss << 10, timed_out, survivors)


def _group_ends(group: int) -> bool:
    """Whether no process of the group is left after a while; then they are killed."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
        except ChildProcessError:
            return True
    os.killpg(group, signal.SIGKILL)
    return False


def _pipe() -> tuple[int, int]:
    """Wide enough for all that a command says; unlike a file it has no part in limits on files."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(reading, False)
    return reading, writing


def _drained(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        return (file.read() or b"").decode("utf-8", "replace")


def start(work: Callable[[], None], folder: Path, before: Callable[[], None] = lambda: None) -> Started:
    """Run `work` in a forked child that stands in `folder`; `before`: called in it first."""
    (out, to_out), (error, to_error) = _pipe(), _pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        _child(work, folder, before, to_out, to_error)
    os.close(to_out)
    os.close(to_error)
    return Started(pid, began, out, error)


def _child(work: Callable[[], None], folder: Path, before: Callable[[], None], out: int, error: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(error, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
        faulthandler.enable()
        os.chdir(folder)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _BEYOND,) * 2)
        before()
        work()
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(_flushed(code))


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return code or 1
    return code


def start_command(line: Iterable[object], folder: Path, before: Callable[[], None] = lambda: None) -> Started:
    """`memofast LINE` in a child, as `start`."""

    def work() -> None:
        from memofast import cli

        sys.argv = ["memofast", *map(str, line)]
        cli.main()

    return start(work, folder, before)


def command(line: Iterable[object], folder: Path, before: Callable[[], None] = lambda: None) -> Ended:
    return start_command(line, folder, before).end()


def done(work: Callable[[], None], folder: Path | None = None) -> None:
    """Do something in a child, so that this process keeps nothing of it. Raises where it fails."""
    ended = start(work, folder or Path(tempfile.gettempdir())).end()
    if ended.code:
        raise AssertionError(f"{ended.code}: {ended.out}{ended.error}")

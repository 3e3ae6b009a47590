"""Ctrl-C, SIGTERM and SIGHUP end a command in order: what it holds is let go, and it exits with 128 + the signal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = {"SIGINT": "interrupted", "SIGTERM": "ended by SIGTERM", "SIGHUP": "ended by SIGHUP"}
_TOLD = {getattr(signal, name): told for name, told in _NAMES.items() if hasattr(signal, name)}
_BOUNCE = 0.5  # seconds in which a second signal is taken for the first
_LOOK_AGAIN = 0.05  # seconds until an import is looked at again
_held: list[str] = []


class Stopped(SystemExit):
    """SIGTERM or SIGHUP, on its way out as `KeyboardInterrupt` is. code: 128 + the signal; told: what to say."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.told = _TOLD[number]


class Ending:
    """Context of a command in which the first signal is raised and a later one, not a bounce of it, ends at once.

    Nothing is raised inside an import, which may swallow it or take it for a missing module: there the program ends at
    once, or after the import where something is held. Where a library turned it into an error of its own, it is raised
    again.
    """

    def __init__(self, name: str):
        self._name = name
        self._asked: int | None = None
        self._since, self._raised = 0.0, False

    def __enter__(self) -> Ending:
        self._before = {number: signal.signal(number, self._ask) for number in _heeded()}
        if self._before:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._ask_again)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        lost = error is not None and not _comes_of_a_signal(error)
        if self._asked is not None and (lost or not self._raised):  # in a library, or an import that came last
            self._raise()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None:
            if time.monotonic() - self._since > _BOUNCE:
                _exit_now(self._name, number)
            return
        self._asked, self._since = number, time.monotonic()
        self._ask_again(0, frame)

    def _ask_again(self, _number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            if not _held:
                _exit_now(self._name, self._asked)
            signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN)
        else:
            self._raise()

    def _raise(self) -> None:
        self._raised = True
        raise KeyboardInterrupt if self._asked == signal.SIGINT else Stopped(self._asked)


def _comes_of_a_signal(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        error = error.__context__
    return error is not None


@contextmanager
def held(what: str) -> Iterator[None]:
    """While the context is open there is something to put in order before the program ends."""
    _held.append(what)
    try:
        yield
    finally:
        _held.remove(what)


def end_early() -> None:
    """Where memofast is the program that starts: a signal ends it at once, with one line, as it holds nothing yet."""
    if "--multiprocessing-fork" in sys.orig_argv:
        return  # a worker, whose program speaks for it
    started = os.path.basename(sys.argv[0]) if sys.argv else ""
    run_as_module = any(
        flag == "-m" and name.partition(".")[0] == "memofast"
        for flag, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    )
    if started == "memofast" or (started == "-m" and run_as_module):
        for number in _heeded():
            signal.signal(number, lambda number, _frame: _exit_now("memofast", number))


def _heeded() -> list[int]:
    """The signals that are not ignored from the start, as under nohup, where this is the main thread."""
    import threading

    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in _TOLD if signal.getsignal(number) is not signal.SIG_IGN]


def _imports(frame: FrameType | None) -> bool:
    """Whether a command is inside an import."""
    while frame is not None and frame.f_globals.get("__name__") != "memofast.cli":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _exit_now(name: str, number: int) -> None:
    try:
        os.write(2, f"{name}: {_TOLD[number]}\n".encode("ascii", "backslashreplace"))
    finally:
        os._exit(128 + number)

"""Commands killed at moments and at file events, and repeated to the end: nothing lost, nothing left, the same bits."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import children
import outputs
from events import Events
from workshop import COMMANDS, Command

_FURTHER = 0.25  # of the interrupted runs are interrupted once more as they go on
_ENDS = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (128 + signal.SIGTERM,)}


class Spoilt(Exception):
    """A command fails that nothing disturbs."""


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    contents: dict[str, str]
    events: int
    seconds: float

    @classmethod
    def of(cls, command: Command, inputs: Path, folder: Path) -> "Whole":
        begin(command, inputs, folder)
        events = Events(folder)
        ended = children.command(command.line(inputs, folder), folder, events.watch)
        if ended.code or ended.fault():
            raise Spoilt(f"undisturbed: {ended.fault()}; {ended.error[-2000:]}")
        return cls(outputs.contents(folder), events.count, ended.seconds)


def begin(command: Command, inputs: Path, folder: Path) -> None:
    """An empty folder, but for what lies there before the command."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command.before(inputs, folder)


@dataclass(frozen=True)
class Kill:
    """At the event of this number, or after so many seconds where that is 0. whom: the process, its group, or one of
    its workers."""

    signal: int
    event: int
    seconds: float
    whom: str

    @classmethod
    def draw(cls, draw: random.Random, whole: Whole, workers: int) -> "Kill":
        sent = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        event = draw.randint(1, whole.events) if draw.random() < 0.6 else 0
        seconds = draw.uniform(0, whole.seconds)
        whom = "itself" if workers == 1 or event else draw.choice(("itself", "group", "worker"))
        return cls(signal.SIGKILL if whom == "worker" else sent, event, seconds, whom)

    def __str__(self) -> str:
        moment = f"event {self.event}" if self.event else f"{self.seconds:.3f} s"
        return f"{signal.Signals(self.signal).name} to {self.whom} at {moment}"

    def strike(self, line: list[object], folder: Path) -> tuple[children.Ended, bool]:
        """Run the line and kill it. Returns: how it ended, and whether the signal met it alive."""
        events = Events(folder)

        def at(number: int) -> None:
            if number == self.event:
                os.kill(os.getpid(), self.signal)

        started = children.start_command(line, folder, lambda: events.watch(at))
        met = bool(self.event)
        if not self.event and not started.wait(self.seconds):
            met = self._send(started)
        ended = started.end()
        return ended, met and events.count >= self.event

    def _send(self, started: children.Started) -> bool:
        if self.whom != "worker":
            started.send(self.signal, group=self.whom == "group")
            return True
        workers = [pid for pid in _children(started.pid) if b"spawn_main" in _line_of(pid)]
        if workers:
            os.kill(workers[0], self.signal)
        return bool(workers)

    def fault(self, ended: children.Ended, events: int) -> str | None:
        """What is wrong with how it ended; a signal may come too late, and SIGTERM before there is anything to save."""
        early = (-signal.SIGTERM,) if self.signal == signal.SIGTERM and not events else ()
        return ended.fault((0, *_ENDS[self.signal], *early))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _line_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def interrupted(command: Command, whole: Whole, inputs: Path, folder: Path, draw: random.Random) -> tuple[int, list]:
    """One run, interrupted once or more and brought to its end. Returns: how often it was, and its faults."""
    begin(command, inputs, folder)
    line, kills, told = command.line(inputs, folder), 0, []
    while True:
        kill = Kill.draw(draw, whole, command.workers)
        ended, met = kill.strike(line, folder)
        kills += met
        told.append(str(kill))
        if wrong := kill.fault(ended, whole.events if any(folder.rglob("*")) else 0):
            return kills, [f"{', '.join(told)}: {wrong}"]
        line = command.goes_on(inputs, folder)
        if draw.random() > _FURTHER:
            break
    ended = children.command(line, folder)
    wrong, other = ended.fault(), outputs.differences(folder, whole.contents)
    if ended.code == 2 and not other:
        wrong = None  # it had come to its end, and says so
    elif ended.code == 2:
        wrong = wrong or f"refused to go on: {ended.error.strip()}"
    faults = [fault for fault in (wrong, other) if fault]
    return kills, [f"{', '.join(told)}, and run again: {'; '.join(faults)}"] if faults else []


def campaign(
    name: str, count: int, inputs: Path, folder: Path, draws: Callable[[int], random.Random], only: int | None
) -> tuple[int, dict[int, str]]:
    """Kill a command so many times. Returns: how often it was, and by number what went wrong."""
    command, faults, kills, number = COMMANDS[name], {}, 0, only or 0
    whole = Whole.of(command, inputs, folder / "whole")
    while kills < count and number < 10 * count:
        met, wrong = interrupted(command, whole, inputs, folder / "run", draws(number))
        kills += met
        if wrong:
            faults[number] = wrong[0]
        if only is not None:
            break
        number += 1
    return kills, faults

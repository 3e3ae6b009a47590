"""Commands killed at moments and at file events, and repeated to the end: nothing lost, nothing left, the same bits."""

import os
import random
import shutil
import signal
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
    """A run that nothing disturbed. sizes: bytes of its files."""

    contents: dict[str, str]
    sizes: tuple[int, ...]
    events: int
    seconds: float

    @classmethod
    def of(cls, command: Command, inputs: Path, folder: Path) -> "Whole":
        begin(command, inputs, folder)
        events = Events(folder)
        ended = children.command(command.line(inputs, folder), folder, events.watch)
        if ended.code or ended.fault():
            raise Spoilt(f"undisturbed: {ended.fault()}; {ended.error[-2000:]}")
        sizes = tuple(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return cls(outputs.contents(folder), sizes, events.count, ended.seconds)


class Site:
    """Where a part of the campaign works: `folder`, beside the `inputs`. seed, part: what its draws depend on."""

    def __init__(self, inputs: Path, folder: Path, seed: int, part: str, wholes: dict[str, Whole]):
        self.inputs, self.folder, self._wholes = inputs, folder, wholes
        self._seed, self._part = seed, part

    def draw(self, number: int) -> random.Random:
        """The random numbers of one case, whatever other cases there are."""
        return random.Random(f"{self._seed}/{self._part}/{number}")

    def whole(self, name: str) -> Whole:
        """An undisturbed run of a command. Raises: `Spoilt`."""
        if name not in self._wholes:
            self._wholes[name] = Whole.of(COMMANDS[name], self.inputs, self.folder / "whole")
        return self._wholes[name]


def begin(command: Command, inputs: Path, folder: Path) -> None:
    """An empty folder, but for what lies there before the command."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command.before(inputs, folder)


def to_the_end(command: Command, whole: Whole, inputs: Path, folder: Path) -> str | None:
    """What is wrong after an interrupted command went on, undisturbed."""
    ended = children.command(command.goes_on(inputs, folder), folder)
    other = outputs.differences(folder, whole.contents)
    if ended.code == 2 and not other:
        return None  # it had come to its end, and says so
    wrong = ended.fault() or (f"refused: {ended.error.strip()}" if ended.code else None)
    return "; ".join(fault for fault in (wrong, other) if fault) or None


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

    def strike(self, line: list[object], folder: Path, also: tuple[int, ...] = ()) -> tuple[str | None, bool]:
        """Run the line and kill it. also: codes that it may end with. Returns: what is wrong with how it ended, and
        whether the signal met it alive."""
        events = Events(folder)

        def at(number: int, _: str) -> None:
            if number == self.event:
                os.kill(os.getpid(), self.signal)

        started = children.start_command(line, folder, lambda: events.watch(at))
        met = bool(self.event)
        if not self.event and not started.wait(self.seconds):
            met = self._send(started)
        ended = started.end()
        met = met and events.count >= self.event
        if self.whom == "worker":
            return ended.fault((0,)), met  # another one does its work
        early = (-signal.SIGTERM,) if self.signal == signal.SIGTERM and not events.count else ()
        return ended.fault((0, *_ENDS[self.signal], *early, *also)), met

    def _send(self, started: children.Started) -> bool:
        if self.whom != "worker":
            started.send(self.signal, group=self.whom == "group")
            return True
        workers = [pid for pid in _children(started.pid) if b"spawn_main" in _line_of(pid)]
        if workers:
            os.kill(workers[0], self.signal)
        return bool(workers)


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


def interrupted(name: str, site: Site, draw: random.Random) -> tuple[int, str | None]:
    """One run, interrupted once or more and brought to its end. Returns: how often it was, and what went wrong."""
    command, whole, folder = COMMANDS[name], site.whole(name), site.folder / "run"
    begin(command, site.inputs, folder)
    line, kills, told = command.line(site.inputs, folder), 0, []
    while True:
        kill = Kill.draw(draw, whole, command.workers)
        # what was stopped in its last moment may be whole, and refuses to be repeated
        whole_before = bool(told) and not outputs.differences(folder, whole.contents)
        wrong, met = kill.strike(line, folder, (2,) if whole_before else ())
        kills += met
        told.append(str(kill))
        if wrong:
            return kills, f"{', '.join(told)}: {wrong}"
        line = command.goes_on(site.inputs, folder)
        if draw.random() > _FURTHER:
            break
    wrong = to_the_end(command, whole, site.inputs, folder)
    return kills, f"{', '.join(told)}, and run again: {wrong}" if wrong else None


def campaign(name: str, count: int, site: Site, only: int | None) -> tuple[int, dict[int, str]]:
    """Kill a command so many times. Returns: how often it was, and by number of the run what went wrong."""
    faults, kills, number = {}, 0, only or 0
    while kills < count and number < 10 * count + (only or 0):
        met, wrong = interrupted(name, site, site.draw(number))
        kills += met
        if wrong:
            faults[number] = wrong
        if only is not None:
            break
        number += 1
    return kills, faults

"""Files damaged a hundred to a process: each is read or refused in one line."""

import io
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import children
from kills import Site
from kinds import KINDS, Kind

PER_PROCESS = 100
_FINE = ("read", "refused")


@dataclass
class Outcome:
    """counts: by `read` and `refused`. faults: by number what went wrong."""

    counts: Counter = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.counts.values()) + len(self.faults)


def each_in_turn(numbers: range, one: Callable[[int], str], folder: Path) -> Outcome:
    """What `one` says of each number: read, refused, or a fault, which what it raises is too. A hundred share a forked
    process, and one that ends its process is at fault."""
    outcome, told = Outcome(), folder / "told"
    first = numbers.start
    while first < numbers.stop:
        some = range(first, min(first + PER_PROCESS, numbers.stop))
        told.write_bytes(b"")
        started = children.start(lambda some=some: _some(some, one, told), folder)
        size, waited = -1, 0
        while not started.wait(1) and waited <= children.SECONDS + 5:
            waited, size = (waited + 1, size) if told.stat().st_size == size else (0, told.stat().st_size)
        ended = started.end(0 if waited > children.SECONDS else children.SECONDS)
        lines = [json.loads(line) for line in told.read_text().splitlines()]
        for number, said in lines:
            if said in _FINE:
                outcome.counts[said] += 1
            else:
                outcome.faults[number] = said
        first = some.stop
        if len(lines) < len(some):
            first = some.start + len(lines) + 1
            outcome.faults[first - 1] = ended.fault() or f"its process ended with {ended.code}"
        elif wrong := ended.fault():
            outcome.faults[some.stop - 1] = f"one of a hundred up to here: {wrong}"
    return outcome


def _some(numbers: range, one: Callable[[int], str], told: Path) -> None:
    signal.signal(signal.SIGALRM, _too_long)
    with told.open("a") as file:
        for number in numbers:
            signal.alarm(children.SECONDS)
            try:
                said = one(number)
            except BaseException as error:
                said = explained(error)
            signal.alarm(0)
            file.write(json.dumps([number, said]) + "\n")
            file.flush()


def _too_long(_number: int, _frame: object) -> None:
    raise TimeoutError(f"over {children.SECONDS} s")


def explained(error: BaseException) -> str:
    """An exception with the innermost line of the package that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    where = next((f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames) if "/memofast/" in f.filename), "?")
    return f"{type(error).__name__} at {where}: {str(error)[:200]!a}"


def outcome_of(read: Callable[[], object]) -> str:
    """`read`, or `refused` where it says in one line why not. Raises what else it raises."""
    from memofast.errors import MemofastError

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
            read()
        return "read"
    except MemofastError as error:
        str(error).encode("utf-8", "surrogateescape")
        assert len(str(error).splitlines()) == 1, f"more than a line: {str(error)[:200]!a}"
        assert len(str(error)) < 20_000, f"a long line: {str(error)[:200]!a}"
        return "refused"
    except SystemExit as stopped:
        assert stopped.code in (0, 2, None), f"exit code {stopped.code}: {said.getvalue()[-200:]!a}"
        return "refused" if stopped.code else "read"


class Unread(Exception):
    """What reads a kind does not read it where nothing is damaged, so that to be refused would say nothing."""


def copied(kind: Kind, inputs: Path, folder: Path) -> Path:
    """A copy of the kind's base in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    if kind.base:
        left = shutil.ignore_patterns("lock.mdb", "events.out*")
        shutil.copytree(inputs / kind.base, folder, symlinks=True, ignore=left)
    else:
        folder.mkdir()
        for name in kind.files:
            shutil.copy(inputs / name, folder)
    return folder


def in_process(name: str, numbers: range, site: Site) -> Outcome:
    """Mutations of a kind, read by a function, or by a command that lets exceptions through."""
    kind, begun = KINDS[name], []

    def read(place: Path, draw: random.Random) -> str:
        if kind.read:
            return outcome_of(lambda: kind.read(place))
        return outcome_of(lambda: _command(draw.choice(kind.lines)(site.inputs, place)))

    def one(number: int) -> str:
        draw, place = site.draw(number), site.folder / f"m{number}"
        if not begun:  # the first of a process
            begun.append(read(copied(kind, site.inputs, site.folder / "sound"), draw))
        if begun != ["read"]:
            raise Unread(f"{name} is {begun[0]} undamaged")
        try:
            file = kind.spoil(copied(kind, site.inputs, place), draw)
            try:
                return read(place, draw)
            except BaseException as error:
                return f"{file}: {explained(error)}"
        finally:
            os.chdir(site.folder)
            shutil.rmtree(place, ignore_errors=True)

    return each_in_turn(numbers, one, site.folder)


def _command(line: list[object]) -> None:
    from memofast import cli

    sys.argv = ["memofast", *map(str, line), "--debug"]
    cli.main()


def by_command(name: str, numbers: range, site: Site) -> Outcome:
    """Mutations of a kind, each read by a command of its own process."""
    kind, outcome = KINDS[name], Outcome()
    for line in kind.lines:
        ended = children.command(line(site.inputs, copied(kind, site.inputs, site.folder / "sound")), site.folder)
        if ended.code:
            return Outcome(faults={0: f"undamaged: {ended.fault()}; {ended.error.strip()}"})
    for number in numbers:
        draw, place = site.draw(number), site.folder / f"m{number}"
        file = kind.spoil(copied(kind, site.inputs, place), draw)
        line = draw.choice(kind.lines)(site.inputs, place)
        ended = children.command(line, site.folder)
        if wrong := ended.fault():
            outcome.faults[number] = f"{file}: {line[0]}: {wrong}"
        else:
            outcome.counts["refused" if ended.code else "read"] += 1
        shutil.rmtree(place, ignore_errors=True)
    return outcome

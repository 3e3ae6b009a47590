"""The same command twice into one folder; readers of a store that grows."""

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import children
import numpy as np
import outputs
from events import Events
from kills import Whole, begin
from workshop import COMMANDS, Command


def two_at_once(
    name: str, numbers: range, inputs: Path, folder: Path, draws: Callable[[int], random.Random]
) -> dict[int, str]:
    """By number what went wrong where a command was started while another one like it stood still at a file event."""
    command, faults = COMMANDS[name], {}
    whole = Whole.of(command, inputs, folder / "whole")
    for number in numbers:
        event = draws(number).randint(1, whole.events)
        if wrong := _pair(command, whole, inputs, folder / "run", event):
            faults[number] = f"another one at event {event}: {wrong}"
    return faults


def _pair(command: Command, whole: Whole, inputs: Path, folder: Path, event: int) -> str | None:
    begin(command, inputs, folder)
    events = Events(folder)

    def at(number: int) -> None:
        if number == event:
            os.kill(os.getpid(), signal.SIGSTOP)

    first = children.start_command(command.line(inputs, folder), folder, lambda: events.watch(at))
    _wait_for_stop(first)
    second = children.command(command.goes_on(inputs, folder), folder)
    first.send(signal.SIGCONT)
    ended = first.end()
    for one in (ended, second):
        if wrong := one.fault():
            return wrong
    if ended.code and second.code:
        return f"both are refused: {ended.error.strip()}; {second.error.strip()}"
    if second.code and str(first.pid) not in second.error:
        return f"the second is not told who is there: {second.error.strip()}"
    if command.again and not second.code and not ended.code:
        return None  # two runs of their own
    return outputs.differences(folder, whole.contents)


def _wait_for_stop(started: children.Started) -> None:
    """Until it stands still or has ended."""
    os.waitid(os.P_PID, started.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def growing(
    _: str, numbers: range, inputs: Path, folder: Path, draws: Callable[[int], random.Random]
) -> dict[int, str]:
    """By number what went wrong where a store grew beyond its map while another process packed its rows."""
    faults = {}
    for number in numbers:
        shutil.rmtree(folder / "grown", ignore_errors=True)
        shutil.copytree(inputs / "moods", folder / "grown")
        seed = draws(number).getrandbits(32)
        reader = children.start(lambda: _read_on(folder / "grown"), folder)
        grows = children.start(lambda seed=seed: _grow(folder / "grown" / "visual", seed), folder).end()
        (folder / "grown" / "enough").touch()
        wrong = [ended.fault((0,)) for ended in (grows, reader.end())]
        if any(wrong):
            faults[number] = "; ".join(f"{who}: {what}" for who, what in zip(("writer", "reader"), wrong, strict=True))
    return faults


def _read_on(folder: Path) -> None:
    import torch

    from memofast.data import Corpus

    split = Corpus.open(folder).split("train")
    first, reads = split.pack(range(len(split))), 0
    while not (folder / "enough").exists() or reads < 3:
        again = Corpus.open(folder).split("train") if reads % 7 == 6 and (folder / "enough").exists() else split
        assert torch.equal(again.pack(range(len(split))).visual, first.visual), f"other rows at read {reads}"
        reads += 1


def _grow(path: Path, seed: int) -> None:
    """Write beyond the 64 MiB of the first map."""
    from memofast.store import FeatureStore, FeatureWriter

    random, width = np.random.default_rng(seed), FeatureStore.open(path).width
    with FeatureWriter(path, width) as writer:
        for number in range(40):
            rows = random.standard_normal((int(random.integers(1, 600_000)), width), np.float32)
            writer.put(f"new{number}", rows)
            if random.random() < 0.3:
                writer.commit()


def full_disk(
    name: str, numbers: range, inputs: Path, folder: Path, draws: Callable[[int], random.Random]
) -> dict[int, str]:
    """By number what went wrong where there was room for so many file events, or for so many bytes of a file."""
    import resource

    command, faults = COMMANDS[name], {}
    whole = Whole.of(command, inputs, folder / "whole")
    sizes = sorted({path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file()} - {0})
    for number in numbers:
        draw, events = draws(number), Events(folder / "run")
        event, size = draw.randint(1, whole.events), draw.randrange(draw.choice(sizes))
        by_event = draw.random() < 0.5

        def full(happens: int, event: int = event) -> None:
            if happens >= event:
                raise OSError(28, "No space left on device")

        def before(size=size, by_event=by_event, events=events, full=full) -> None:
            if by_event:
                events.watch(full)
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        begin(command, inputs, folder / "run")
        if wrong := _starved(command, whole, inputs, folder / "run", before):
            faults[number] = f"full {f'at event {event}' if by_event else f'for files beyond {size} bytes'}: {wrong}"
    return faults


def _starved(command: Command, whole: Whole, inputs: Path, folder: Path, before: Callable[[], None]) -> str | None:
    """What is wrong with a command that has no room, and then room again."""
    ended = children.command(command.line(inputs, folder), folder, before)
    if wrong := ended.fault():
        return wrong
    return _with_room(command, whole, inputs, folder)


def _with_room(command: Command, whole: Whole, inputs: Path, folder: Path) -> str | None:
    again = children.command(command.goes_on(inputs, folder), folder)
    other = outputs.differences(folder, whole.contents)
    if again.code == 2 and not other:
        return None  # it had come to its end
    if wrong := again.fault() or (again.code and again.error.strip()):
        return f"with room again: {wrong}"
    return other and f"with room again: {other}"


class NeedsRoot(Exception):
    """A small disk can only be mounted by root."""


class Mounted:
    """A tmpfs of so many MiB in a folder. Raises: `NeedsRoot`."""

    def __init__(self, folder: Path, mebibytes: int):
        self.folder, self.mebibytes = folder, mebibytes

    def __enter__(self) -> "Mounted":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mount("-o", f"size={self.mebibytes}m")
        return self

    def _mount(self, *options: str) -> None:
        if (
            not sys.platform.startswith("linux")
            or os.geteuid() != 0
            or self._run("mount", "-t", "tmpfs", *options, "none")
        ):
            raise NeedsRoot(f"a tmpfs cannot be mounted at {self.folder} (needs root)")

    def _run(self, *command: str) -> int:
        import subprocess

        return subprocess.run([*command, str(self.folder)], capture_output=True).returncode

    def read_only(self) -> None:
        if self._run("mount", "-o", "remount,ro"):
            raise NeedsRoot(f"{self.folder} cannot be mounted read-only")

    def writable(self) -> None:
        self._run("mount", "-o", "remount,rw")

    def __exit__(self, *_: object) -> None:
        self._run("umount", "-l")


def small_disk(
    name: str, numbers: range, inputs: Path, folder: Path, draws: Callable[[int], random.Random]
) -> dict[int, str]:
    """By number what went wrong on a tmpfs with a drawn room, or on one that was read-only."""
    command, faults = COMMANDS[name], {}
    whole = Whole.of(command, inputs, folder / "whole")
    taken = sum(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
    with Mounted(folder / "disk", 4 * (taken >> 20) + 8) as disk:
        for number in numbers:
            draw, place = draws(number), folder / "disk" / "run"
            begin(command, inputs, place)
            if draw.random() < 0.15:
                disk.read_only()
                ended = children.command(command.line(inputs, place), place)
                disk.writable()
                wrong = ended.fault((2,)) or _with_room(command, whole, inputs, place)
                room = "read-only"
            else:
                room = int(draw.uniform(0, 1.5 * taken))
                fill = folder / "disk" / "fill"
                free = shutil.disk_usage(folder / "disk").free
                fill.write_bytes(bytes(max(free - room, 0)))
                wrong = children.command(command.line(inputs, place), place).fault()
                fill.unlink()
                wrong = wrong or _with_room(command, whole, inputs, place)
            if wrong:
                faults[number] = f"room for {room} bytes: {wrong}"
            shutil.rmtree(place)
    return faults


Crowd = Callable[[str, range, Path, Path, Callable[[int], random.Random]], dict[int, str]]
CROWDS: dict[str, tuple[Crowd, Sequence[str]]] = {
    "two at once": (two_at_once, [name for name, command in COMMANDS.items() if command.workers == 1]),
    "full disk": (full_disk, [name for name, command in COMMANDS.items() if command.workers == 1]),
    "small disk": (small_disk, [name for name, command in COMMANDS.items() if command.workers == 1]),
    "growing store": (growing, ["store"]),
}

"""The same command twice into one folder; readers of a store that grows; full and read-only disks."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import children
import numpy as np
import outputs
import shared
from events import Events
from kills import Site, Whole, begin, to_the_end
from workshop import COMMANDS, Command

_LOCKED = 4  # file events after which a command has made its folder and locked it
Faults = dict[int, str]  # what went wrong, by number of the case


def two_at_once(name: str, numbers: range, site: Site) -> Faults:
    """A command is started while another one like it stands still at a file event."""
    command, whole, faults = COMMANDS[name], site.whole(name), {}
    for number in numbers:
        event = site.draw(number).randint(1, whole.events)
        if wrong := _pair(command, whole, site.inputs, site.folder / "run", event):
            faults[number] = f"another one at event {event}: {wrong}"
    return faults


def _pair(command: Command, whole: Whole, inputs: Path, folder: Path, event: int) -> str | None:
    begin(command, inputs, folder)
    events = Events(folder)

    def at(number: int, _: str) -> None:
        if number == event:
            os.kill(os.getpid(), signal.SIGSTOP)

    first = children.start_command(command.line(inputs, folder), folder, lambda: events.watch(at))
    met = os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # it stands still, or has ended
    line, within = command.goes_on(inputs, folder), met.si_code == os.CLD_STOPPED and event > _LOCKED
    own = command.again is not None and "--resume" not in line  # a run of its own
    second = children.command(line, folder)
    first.send(signal.SIGCONT)
    ended = first.end()
    for who, one in (("the first", ended), ("the second", second)):
        if wrong := one.fault():
            return f"{who} {wrong}"
    if ended.code and second.code:
        return f"both are refused: {ended.error.strip()}; {second.error.strip()}"
    if within and not second.code and not own:
        return "the second is let in"
    if second.code and str(first.pid) not in second.error:
        return f"the second is not told who is there: {second.error.strip()}"
    return None if own else outputs.differences(folder, whole.contents)


def growing(_: str, numbers: range, site: Site) -> Faults:
    """A store grows beyond its map while another process packs its rows."""
    faults, corpus = {}, site.folder / "grown"
    for number in numbers:
        shutil.rmtree(corpus, ignore_errors=True)
        shutil.copytree(site.inputs / "moods", corpus)
        seed = site.draw(number).getrandbits(32)
        reader = children.start(lambda: _read_on(corpus), site.folder)
        writer = children.start(lambda seed=seed: _grow(corpus / "visual", seed), site.folder).end()
        (corpus / "enough").touch()
        wrong = {"writer": writer.fault((0,)), "reader": reader.end().fault((0,))}
        if any(wrong.values()):
            faults[number] = "; ".join(f"{who}: {what}" for who, what in wrong.items() if what)
    return faults


def _read_on(corpus: Path) -> None:
    import torch

    from memofast.data import Corpus

    split = Corpus.open(corpus).split("train")
    first, reads = split.pack(range(len(split))), 0
    while not (corpus / "enough").exists() or reads < 3:
        assert torch.equal(split.pack(range(len(split))).visual, first.visual), f"other rows at read {reads}"
        reads += 1
    opened = Corpus.open(corpus).split("train")
    assert torch.equal(opened.pack(range(len(split))).visual, first.visual), "other rows after opening it anew"


def _grow(path: Path, seed: int) -> None:
    """Write beyond the 64 MiB of the first map, and finish."""
    from memofast.store import FeatureStore, FeatureWriter

    random, width = np.random.default_rng(seed), FeatureStore.open(path).width
    with FeatureWriter(path, width) as writer:
        for number in range(12):
            writer.put(f"new{number}", np.ones((int(random.integers(1, 2_000_000)), width), np.float32))
            if random.random() < 0.3:
                writer.commit()


def full_disk(name: str, numbers: range, site: Site) -> Faults:
    """There is room for so many file events, or for so many bytes of a file."""
    command, whole, faults, folder = COMMANDS[name], site.whole(name), {}, site.folder / "run"
    for number in numbers:
        draw, events = site.draw(number), Events(folder)
        event, size = draw.randint(1, whole.events), draw.randrange(max(draw.choice(whole.sizes), 1))

        def full(happens: int, what: str, event: int = event) -> None:
            if happens >= event and what in ("open", "os.mkdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def limited(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        begin(command, site.inputs, folder)
        by_event = draw.random() < 0.5
        before = (lambda events=events, full=full: events.watch(full)) if by_event else limited
        wrong = children.command(command.line(site.inputs, folder), folder, before).fault()
        if wrong := wrong or _with_room(command, whole, site.inputs, folder):
            faults[number] = f"full {f'at event {event}' if by_event else f'for files beyond {size} bytes'}: {wrong}"
    return faults


def _with_room(command: Command, whole: Whole, inputs: Path, folder: Path) -> str | None:
    wrong = to_the_end(command, whole, inputs, folder)
    return wrong and f"with room again: {wrong}"


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
        return subprocess.run([*command, str(self.folder)], capture_output=True).returncode

    def read_only(self) -> None:
        if self._run("mount", "-o", "remount,ro"):
            raise NeedsRoot(f"{self.folder} cannot be mounted read-only")

    def writable(self) -> None:
        self._run("mount", "-o", "remount,rw")

    def __exit__(self, *_: object) -> None:
        self._run("umount", "-l")


def small_disk(name: str, numbers: range, site: Site) -> Faults:
    """A tmpfs with a drawn room, or one that is read-only. Raises: `NeedsRoot`."""
    command, whole, faults = COMMANDS[name], site.whole(name), {}
    with Mounted(site.folder / "disk", 8 * (sum(whole.sizes) >> 20) + 32) as disk:
        folder, fill = disk.folder / "run", disk.folder / "fill"
        for number in numbers:
            draw, line = site.draw(number), command.line(site.inputs, folder)
            read_only, room = draw.random() < 0.15, int(draw.uniform(0, 2 * sum(whole.sizes)))
            begin(command, site.inputs, folder)
            if read_only:
                disk.read_only()
            else:
                with fill.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(disk.folder).free - room, 1))
            wrong = children.command(line, folder).fault((2,) if read_only else (0, 2))
            disk.writable()
            fill.unlink(missing_ok=True)
            if wrong := wrong or _with_room(command, whole, site.inputs, folder):
                faults[number] = f"{'read-only' if read_only else f'room for {room} bytes'}: {wrong}"
            shutil.rmtree(folder)
    return faults


_ALONE = [name for name, command in COMMANDS.items() if command.workers == 1 and command.alone]
_ONE_WORKER = [name for name, command in COMMANDS.items() if command.workers == 1]
Crowd = Callable[[str, range, Site], Faults]
CROWDS: dict[str, tuple[Crowd, Sequence[str]]] = {
    "two at once": (two_at_once, _ALONE),
    "full disk": (full_disk, _ONE_WORKER),
    "small disk": (small_disk, _ONE_WORKER),
    "growing store": (growing, ["store"]),
    "filled at once": (shared.filled_at_once, ["a cache"]),
    "cleaned meanwhile": (shared.cleaned_meanwhile, ["frozen weights"]),
    "moved": (shared.moved, ["frozen weights"]),
}

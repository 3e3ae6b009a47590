"""What several commands share: a cache that they fill at once, weights that runs are linked to, and runs that move."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import children
import numpy as np
import outputs
from kills import Site, begin
from workshop import COMMANDS, tuned_by_half

_HOURS = 3 * 3600  # after which weights that no run is linked to go


def filled_at_once(_: str, numbers: range, site: Site) -> dict[int, str]:
    """Two to four commands fill a cache at once; one of them may be killed, and one goes on in the end."""
    name, faults, folder = "cache fill", {}, site.folder / "run"
    command, whole = COMMANDS[name], site.whole(name)
    for number in numbers:
        draw = site.draw(number)
        begin(command, site.inputs, folder)
        line = command.line(site.inputs, folder)
        started = []
        for _ in range(draw.randint(2, 4)):
            started.append(children.start_command(line, folder))
            time.sleep(draw.choice((0, 0, draw.uniform(0, whole.seconds))))
        killed = draw.random() < 0.3
        if killed:
            started[0].send(9)
        told = [one.end().fault((0, -9) if killed and one is started[0] else (0,)) for one in started]
        if killed:
            told.append(children.command(line, folder).fault((0,)))
        told.append(outputs.differences(folder, whole.contents))
        if wrong := [fault for fault in told if fault]:
            faults[number] = f"{len(started)} writers{', one killed' if killed else ''}: {'; '.join(wrong)}"
    return faults


def cleaned_meanwhile(_: str, numbers: range, site: Site) -> dict[int, str]:
    """Two fine-tunings share frozen weights that an earlier run left, and `runs clean` takes what none is linked to."""
    faults, folder = {}, site.folder / "run"
    before = _made_before(site, folder)
    for number in numbers:
        draw = site.draw(number)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        for path in (folder / "runs" / "weights").iterdir():
            os.utime(path, (time.time() - _HOURS,) * 2)
        lines = [tuned_by_half(site.inputs, folder, draw.choice(("hard", "symbolic"))) for _ in range(2)]
        started = []
        for line in lines:
            started.append(children.start_command(line, folder))
            time.sleep(draw.uniform(0, 0.5))
        told = []
        while not all(one.wait(0) for one in started):
            told.append(_clean(folder))
        told += [one.end().fault((0,)) for one in started]
        told.append(_clean(folder))
        told.append(children.command(["runs", "verify"], folder).fault((0,)))
        if wrong := [fault for fault in told if fault]:
            faults[number] = "; ".join(dict.fromkeys(wrong))
    return faults


def _clean(folder: Path) -> str | None:
    return children.command(["runs", "clean"], folder).fault((0,))


def _made_before(site: Site, folder: Path) -> Path:
    """A folder of runs that holds kept weights alone."""
    before = site.folder / "before"
    before.mkdir()
    children.command(tuned_by_half(site.inputs, before), before)
    for run in (before / "runs").glob("finetune-*"):
        shutil.rmtree(run)
    return before


def moved(_: str, numbers: range, site: Site) -> dict[int, str]:
    """A folder of runs is moved, or copied and removed, and its model answers as before."""
    faults, folder = {}, site.folder / "run"
    for number in numbers:
        draw = site.draw(number)
        keeping, how = draw.choice(("hard", "symbolic")), draw.choice(("renamed", "copied", "its run renamed"))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        told = [children.command(tuned_by_half(site.inputs, folder, keeping), folder).fault((0,))]
        (run,) = (folder / "runs").glob("finetune-*")
        told.append(_asked(site, run, folder / "first"))
        if how == "copied":
            shutil.copytree(folder / "runs", folder / "a" / "b", symlinks=True)
            shutil.rmtree(folder / "runs")
        elif how == "renamed":
            (folder / "a").mkdir()
            (folder / "runs").rename(folder / "a" / "b")
        else:
            run.rename(run.with_name("a"))
        place = run.with_name("a") if how == "its run renamed" else folder / "a" / "b" / run.name
        told.append(_asked(site, place, folder / "second"))
        told.append(children.command(["runs", "verify", "--folder", place.parent], folder).fault((0,)))
        told.append(children.command(["runs", "export", place, "--out", folder / "out"], folder).fault((0,)))
        told.append(_asked(site, folder / "out", folder / "third"))
        told += _differ(folder / "first", folder / "second", folder / "third")
        if wrong := [fault for fault in told if fault]:
            faults[number] = f"{keeping}, {how}: {'; '.join(wrong)}"
    return faults


def _asked(site: Site, run: Path, out: Path) -> str | None:
    line = ["evaluate", run, "--corpus", site.inputs / "moods", "--out", out]
    return children.command(line, site.folder).fault((0,))


def _differ(first: Path, *others: Path) -> Iterator[str]:
    files = sorted(path.relative_to(first) for path in first.rglob("*.npz"))
    if not files:
        yield "no answers"
    for name in files:
        for other in others:
            if not (other / name).is_file():
                yield f"no {name}"
            elif not np.array_equal(np.load(first / name)["scores"], np.load(other / name)["scores"]):
                yield f"other {name}"

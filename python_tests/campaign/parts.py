"""The parts of the campaign and their shares: `run` gives what came of one."""

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import children
import crowds
import hundreds
import kills
import pickles
from kinds import KINDS, make_inputs
from workshop import COMMANDS, Bright

# of `--count 1000`: so many kills, mutations in process, mutations by commands, and everything else
KILLS, MUTATIONS, BY_COMMAND, OTHERS = 1_000, 100_000, 500, 300
PICKLES = "pickles"
_WHOLE = 1_000


@dataclass(frozen=True)
class Result:
    """What came of a part. faults: by number what went wrong, to be repeated alone by part, seed and number."""

    part: str
    seed: int
    count: int
    faults: dict[int, str]
    seconds: float
    skipped: str = ""

    def as_json(self) -> dict:
        return asdict(self)


def shares() -> dict[str, float]:
    """Of every part how many there are at `--count 1000`."""
    found: dict[str, float] = {}
    weights = {name: command.weight for name, command in COMMANDS.items()}
    found |= {f"kills: {name}": KILLS * w / sum(weights.values()) for name, w in weights.items()}
    kinds = {name: kind.weight for name, kind in KINDS.items()}
    every = sum(kinds.values()) + pickles.WEIGHT
    found |= {f"mutations: {name}": MUTATIONS * w / every for name, w in kinds.items()}
    found[f"mutations: {PICKLES}"] = MUTATIONS * pickles.WEIGHT / every
    found |= {f"mutations by command: {name}": BY_COMMAND / len(KINDS) for name in KINDS}
    others = [f"{crowd}: {name}" for crowd, (_, names) in crowds.CROWDS.items() for name in names]
    return found | dict.fromkeys(others, OTHERS / len(others))


PARTS = shares()


def count_of(part: str, whole: float) -> int:
    """The part's share of a campaign of this size."""
    return math.ceil(PARTS[part] * whole / _WHOLE)


class Campaign:
    """Inputs in `folder`, made once, and the parts run on them. This process must have imported all that it forks."""

    def __init__(self, folder: Path):
        from memofast.prepare.run import extraction

        children.adopt()
        extraction.find_faces = lambda *_: Bright()
        self.inputs, self.folder = folder / "inputs", folder / "work"
        self._wholes = make_inputs(self.inputs)

    def run(self, part: str, count: int, seed: int, only: int | None = None) -> Result:
        """`count` of a part, or the one of the number `only` alone."""
        began = time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        kind, _, name = part.partition(": ")
        numbers = range(count) if only is None else range(only, only + 1)

        site, skipped = kills.Site(self.inputs, self.folder, seed, part, self._wholes), ""
        try:
            if kind == "kills":
                count, faults = kills.campaign(name, count, site, only)
            elif kind in crowds.CROWDS:
                count, faults = len(numbers), crowds.CROWDS[kind][0](name, numbers, site)
            elif kind == "mutations by command":
                count, faults = len(numbers), hundreds.by_command(name, numbers, site).faults
            elif name == PICKLES:
                count, faults = len(numbers), pickles.campaign(numbers, site).faults
            else:
                count, faults = len(numbers), hundreds.in_process(name, numbers, site).faults
        except crowds.NeedsRoot as reason:
            count, faults, skipped = 0, {}, str(reason)
        except kills.Spoilt as reason:
            count, faults = 0, {0: str(reason)}
        return Result(part, seed, count, faults, time.monotonic() - began, skipped)


def matching(patterns: list[str]) -> Iterator[str]:
    """Parts whose name begins with one of these, or all."""
    return (part for part in PARTS if not patterns or any(part.startswith(pattern) for pattern in patterns))

"""Where a run stands, beside weights and optimiser: what `trainer.json` holds."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from memofast import __version__
from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.sections import Section, checked, leaves, shown


@dataclass
class State:
    """step: last update done. stale: validations since the best one. loader: position in the data. sums: losses not yet
    logged. seconds: spent in updates.

    best, best_value, best_scores: step, relative loss and scores of the best validation so far.
    """

    step: int = 0
    stale: int = 0
    loader: dict[str, Any] | None = None
    sums: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    best: int | None = None
    best_value: float | None = None
    best_scores: list[Any] = field(default_factory=list)

    def consider(self, scores: dict[tuple[str, str], dict[str, float]], value: float) -> bool:
        """Take the scores of this step as the best where their value is lower than before. Returns: whether it is.

        What is not finite is no better than anything but nothing.
        """
        value = value if math.isfinite(value) else math.inf
        better = self.best_value is None or value < self.best_value
        if better:
            self.best, self.best_value, self.stale = self.step, value, 0
            self.best_scores = [[*key, values] for key, values in scores.items()]
        else:
            self.stale += 1
        return better

    @property
    def scores(self) -> dict[tuple[str, str], dict[str, float]]:
        """`best_scores` by (corpus, objective)."""
        return {(corpus, objective): values for corpus, objective, values in self.best_scores}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> State:
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})


Count = Annotated[int, Field(ge=0, lt=2**62)]
Numbers = tuple[str, str, dict[str, int | float]]  # of (corpus, objective)


class StreamPlace(Section):
    stream: str
    samples: str
    epoch: Annotated[int, Field(ge=0, lt=2**31)]
    next: Count


class LoaderPlace(Section):
    seed: Count
    updates: Count
    streams: list[StreamPlace]


class Saved(Section):
    """What `trainer.json` holds: `State`, and what must stay the same for a resumed run to repeat an uninterrupted
    one."""

    step: Annotated[int, Field(ge=1, lt=2**62)]
    stale: Count
    loader: LoaderPlace
    sums: list[Numbers]
    seconds: Annotated[float, Field(ge=0)]
    best: Count | None
    best_value: Annotated[float, Field(allow_inf_nan=True)] | None
    best_scores: list[Numbers]
    environment: dict[str, str | int]
    recipe: dict[str, Any] | None = None


def read_trainer(path: Path, step: int) -> dict[str, Any]:
    """The plain values of a `trainer.json`, as `Saved` describes them.

    Raises: `OSError`; `ValueError`, saying what is wrong, where it is another file, or of another update than `step`.
    """
    values = read_json(path)
    try:
        checked(values, "", Saved)
    except MemofastError as error:
        raise ValueError(str(error).removeprefix(": ")) from None
    if values["step"] != step or values["loader"]["updates"] != step:
        raise ValueError(f"it is of update {values['step']}")
    for _, _, numbers in values["sums"]:
        if numbers.get("targets", 0) <= 0:
            raise ValueError("sums without targets")
    return values


# what changes no number of a run, or is compared by its effect, in the environment
_NO_MATTER = {"train.log_every", "train.save_every", "train.loader_threads", "train.threads", "train.device",
              "train.precision"}  # fmt: skip


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is otherwise in a recipe than it was, in words, by dotted key."""
    one, other = dict(leaves(before)), dict(leaves(now))
    names = [name for name in {**one, **other} if name not in _NO_MATTER]
    pairs = [[shown(of[name]) if name in of else "not given" for of in (one, other)] for name in names]
    return [f"{name} was {was}, is {is_}" for name, (was, is_) in zip(names, pairs, strict=True) if was != is_]


def environment(device: torch.device, precision: str, world: int) -> dict[str, Any]:
    """What must be the same for a resumed run to repeat an uninterrupted one bit for bit."""
    return {
        "memofast": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": world,
        "precision": precision,
    }

"""Where a run stands, beside weights and optimiser: what `trainer.json` holds."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from memofast import __version__


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

"""Sums over targets and their means, by corpus and objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from memofast.objectives import LossSum, Objective

Key = tuple[str, str]  # corpus, objective


class Tally:
    """Losses, targets and metrics summed on the device, by (corpus, objective).

    values [keys, 2 + metrics] fp64: what ranks add up before anybody looks at a number.
    """

    def __init__(self, keys: Sequence[Key], objectives: Mapping[str, Objective], device: torch.device):
        self.keys, self._objectives = list(keys), objectives
        self._metrics = sorted({name for objective in objectives.values() for name in objective.metrics})
        self.values = torch.zeros(len(self.keys), 2 + len(self._metrics), dtype=torch.float64, device=device)

    def add(self, corpus: str, losses: Mapping[str, LossSum]) -> None:
        for name, loss in losses.items():
            if loss.count:
                row = self.values[self.keys.index((corpus, name))]
                row[0] += loss.total.detach()
                row[1] += loss.count
                for metric, value in loss.metrics.items():
                    row[2 + self._metrics.index(metric)] += value

    def sums(self) -> dict[Key, dict[str, float]]:
        """`loss`, `targets` and the objective's metrics as plain numbers, where there were targets."""
        found = {}
        for key, (loss, targets, *metrics) in zip(self.keys, self.values.tolist(), strict=True):
            if targets:
                own = self._objectives[key[1]].metrics
                named = {name: value for name, value in zip(self._metrics, metrics, strict=True) if name in own}
                found[key] = {"loss": loss, "targets": targets, **named}
        return found


class Sums:
    """The sums of several updates, until they are taken."""

    def __init__(self, state: Sequence[Any] = ()):
        self._values: dict[Key, dict[str, float]] = {
            (corpus, objective): dict(values) for corpus, objective, values in state
        }

    def add(self, sums: Mapping[Key, Mapping[str, float]]) -> None:
        for key, values in sums.items():
            kept = self._values.setdefault(key, {})
            for name, value in values.items():
                kept[name] = kept.get(name, 0) + value

    def state(self) -> list[Any]:
        return [[corpus, objective, values] for (corpus, objective), values in self._values.items()]

    def take(self) -> dict[Key, dict[str, float]]:
        """Means over targets, ordered by corpus and objective; the sums start anew."""
        taken = means(self._values)
        self._values.clear()
        return taken


def means(sums: Mapping[Key, Mapping[str, float]]) -> dict[Key, dict[str, float]]:
    """Sums over targets divided by the number of targets, which stays; of a part without any there is no mean."""
    return {key: _means(values) for key, values in sorted(sums.items())}


def _means(values: Mapping[str, float]) -> dict[str, float]:
    found = {}
    for name, value in values.items():
        base, _, part = name.partition(".")
        of = f"targets.{part}" if part else "targets"
        if base == "targets":
            found[name] = int(value)
        elif values[of]:
            found[name] = value / values[of]
    if recalls := [value for name, value in found.items() if name.startswith("recall.")]:
        found["ua"] = sum(recalls) / len(recalls)  # over the classes that there are
    return found

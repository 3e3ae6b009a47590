"""What a run logs: one JSON object per value group and TensorBoard events; cut back at resume."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from memofast.errors import MemofastError


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of a run.

    Args: folder: of the run; step: the update a resumed run continues after; what was logged later is cut away.
    """

    def __init__(self, folder: Path, step: int = 0):
        self.path = folder / "metrics.jsonl"
        _cut_back(self.path, step)
        self._file = self.path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, **entry: Any) -> None:
        """One value group: step, split, corpus, objective, loss, targets, and what else there is."""
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise MemofastError(f"{self.path} cannot be written ({error.strerror}); free space and resume") from None
        place = "/".join(entry[name] for name in ("split", "corpus", "objective"))
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name not in ("step", "targets"):
                self._events.add_scalar(f"{place}/{name}", value, entry["step"])

    def sync(self) -> None:
        """Bring everything to the disk, as a checkpoint will refer to it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        self._file.close()
        self._events.close()


def peak_memory(device: torch.device) -> float:
    """GiB that this process had at most so far: reserved by PyTorch on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, see getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    return list(_entries(path.read_text(encoding="utf-8").split("\n"))) if path.exists() else []


def _entries(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _cut_back(path: Path, step: int) -> None:
    kept = [entry for entry in read_metrics(path) if entry["step"] <= step]
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in kept)
    os.replace(temporary, path)

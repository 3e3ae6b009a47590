"""What a run logs: one JSON object per value group and TensorBoard events; cut back at resume."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.utils.tensorboard import SummaryWriter

from memofast.errors import MemofastError
from memofast.files import parse_json, replace_file
from memofast.train.tracking import Tracker


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of a run.

    Args: folder: of the run; step: the update a resumed run continues after; what was logged later is cut away;
        tracker: gets the same numbers.
    said: what was lost of a damaged log, for people, or nothing.
    """

    def __init__(self, folder: Path, step: int = 0, tracker: Tracker | None = None):
        self.path, self._tracker = folder / "metrics.jsonl", tracker
        self.said = _cut_back(self.path, step)
        self._hook, threading.excepthook = threading.excepthook, self._in_thread
        try:
            self._file = self.path.open("ab", buffering=0)  # what a full disk refuses is not tried again at the end
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        except OSError as error:
            raise self._full(error) from None

    def write(self, **entry: Any) -> None:
        """One value group: step, split, corpus, objective, loss, targets, and what else there is."""
        try:
            left = (json.dumps(entry) + "\n").encode()
            while left:
                left = left[self._file.write(left) :]
            place = "/".join(entry[name] for name in ("split", "corpus", "objective"))
            curves = {
                f"{place}/{name}": value
                for name, value in entry.items()
                if isinstance(value, (int, float)) and name.partition(".")[0] not in ("step", "targets")
            }
            for name, value in curves.items():
                self._events.add_scalar(name, value, entry["step"])
            if self._tracker:
                self._tracker.log(curves, entry["step"])
        except OSError as error:
            raise self._full(error) from None

    def sync(self) -> None:
        """Bring everything to the disk, as a checkpoint will refer to it."""
        try:
            os.fsync(self._file.fileno())
            self._events.flush()
        except OSError as error:
            raise self._full(error) from None

    def close(self) -> None:
        self._file.close()
        if self._tracker:
            self._tracker.close()
        try:
            self._events.close()
        except OSError as error:
            raise self._full(error) from None
        finally:
            threading.excepthook = self._hook

    def _in_thread(self, failed: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread ends at a full disk, and whoever writes next is told: no traceback beside that."""
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)

    def _full(self, error: OSError) -> MemofastError:
        return MemofastError(f"{self.path.parent}: its log cannot be written ({error.strerror}); free space and resume")


def peak_memory(device: torch.device) -> float:
    """GiB that this process had at most so far: reserved by PyTorch on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, see getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Entry(BaseModel):
    """What every line has; further numbers differ."""

    model_config = ConfigDict(extra="allow")
    step: int = Field(ge=0)
    split: str
    corpus: str
    objective: str


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a `metrics.jsonl` up to the first line that is none, as the last of a killed run may be."""
    return _entries(path)[0]


def _entries(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The entries before the first line that is none, and how many lines follow after it, a torn last one aside."""
    found: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for line in lines:
        try:
            entry = parse_json(line.decode())
            Entry.model_validate(entry)
        except ValueError:
            break
        found.append(entry)
    return found, max(len(lines) - len(found) - 1, 0)


def _cut_back(path: Path, step: int) -> str:
    """Leave only what was logged up to an update. Returns: what was lost, for people, or nothing."""
    entries, lost = _entries(path)
    kept = [entry for entry in entries if entry["step"] <= step]
    replace_file(path, b"".join((json.dumps(entry) + "\n").encode() for entry in kept))
    return f"{path}: line {len(entries) + 1} is damaged; it and what follows are cut off" if lost else ""

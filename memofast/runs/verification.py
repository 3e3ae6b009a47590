"""Whether every file of a run can be read: configurations, logs, weights, answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from memofast.errors import MemofastError
from memofast.files import files_below, read_json, refuse_pointer
from memofast.metrics.predictions import Predictions
from memofast.model.weights import shards_of
from memofast.train.checkpoints import read_tensors
from memofast.train.recipe_text import read_yaml
from memofast.train.weights import changed


def faults(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file of a run that cannot be read, and why. Files whose kind memofast does not write are only opened."""
    for path in sorted(path for path, _ in files_below(folder)):
        if path.is_symlink() and not path.exists():
            yield path, f"a link to {path.readlink()}, where there is nothing"
        elif path.is_file() and (reason := _fault(path)) and path.is_file():  # it is still there
            yield path, reason


def changed_weights(runs: Path) -> Iterator[tuple[Path, str]]:
    """Each file of weights kept for a folder of runs that is not what its name says, and why."""
    for path in changed(runs):
        yield path, "its bytes have another SHA-256 than its name; every run that is linked to it is changed"


def _fault(path: Path) -> str:
    try:
        refuse_pointer(path)
        reader_of(path)(path)
    except MemofastError as error:
        return str(error).removeprefix(f"{path}").lstrip(": ")
    except Exception as error:  # a damaged file has as many kinds of error as libraries that read it
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        return reason.splitlines()[0]
    return ""


def reader_of(path: Path) -> Callable[[Path], object]:
    """What reads all of a file of this name."""
    if path.name.endswith(".index.json"):
        return shards_of
    if path.suffix == ".npz" and path.parent.name == "answers":
        return Predictions.load
    return _READERS.get(path.suffix, _bytes)


def _lines(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line)


def _bytes(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": read_json,
    ".jsonl": _lines,
    ".safetensors": read_tensors,
    ".yaml": lambda path: read_yaml(path.read_text(encoding="utf-8"), str(path)),
}

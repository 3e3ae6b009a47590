"""What a run's folder holds that nobody will read: what killed processes left, checkpoints of a finished training."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memofast.errors import MemofastError
from memofast.files import files_below, remove
from memofast.locks import lock_folder
from memofast.model.folder import model_folder
from memofast.runs.facts import RunFacts
from memofast.train.checkpoints import remove_folder
from memofast.train.weights import FOLDER, held_together, unused

_LEFT = re.compile(r"\.(step-\d+\.partial|.+\.deleted)")


@dataclass(frozen=True)
class Removal:
    """path: a folder; bytes: what it takes; reason: why nobody needs it."""

    path: Path
    bytes: int
    reason: str


def removals(run: RunFacts, keep_best: bool) -> Iterator[Removal]:
    """What may go of a run.

    keep_best: of a finished pre-training every checkpoint but the best, so that no training goes on from it; one that
    is not finished keeps all that it needs to go on.
    """
    walked = os.walk(run.folder)  # which passes over what goes meanwhile
    for path in sorted(Path(place, name) for place, names, _ in walked for name in names if _LEFT.fullmatch(name)):
        yield Removal(path, _size(path), "left by a process that was killed")
    if not keep_best or run.kind != "pretrain" or run.state != "finished":
        return
    best = model_folder(run.folder)
    for path in sorted(run.folder.glob("checkpoints/step-*")):
        if path.name[5:].isdecimal() and path != best:
            yield Removal(path, _size(path), f"not the best checkpoint, {best.name}")


def clean(run: RunFacts, keep_best: bool, dry: bool) -> tuple[list[Removal], str]:
    """Remove them, or with `dry` say what would go. Returns: what went, and why the run was left as it is, or
    nothing."""
    if dry:
        return list(removals(run, keep_best)), ""
    try:
        with lock_folder(run.folder):
            found = list(removals(run, keep_best))
            for one in found:
                remove_folder(one.path)
    except MemofastError as error:
        return [], str(error)
    return found, ""


def clean_weights(runs: Path, dry: bool) -> list[Removal]:
    """Remove the kept weights to which no run is linked any more, or with `dry` say which would go."""
    if not (runs / FOLDER).is_dir():
        return []
    with held_together(runs / FOLDER, alone=True):
        found = [Removal(path, path.stat().st_size, "weights that no run is linked to") for path in unused(runs)]
        for one in found if not dry else ():
            remove(one.path)
    return found


def _size(folder: Path) -> int:
    return sum(its.st_size for _, its in files_below(folder))

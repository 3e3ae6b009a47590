"""A run as a folder of its own, without links, to be handed on."""

from __future__ import annotations

import shutil
from pathlib import Path

from memofast.errors import MemofastError
from memofast.files import remove, temporary_of, writing
from memofast.locks import LOCK
from memofast.runs.facts import is_run
from memofast.runs.verification import faults


def export_run(run: Path, out: Path) -> int:
    """Copy a run, its links as the files that they lead to. Returns: bytes written.

    Raises: `MemofastError` before anything is written where it is no run, a file cannot be read or the place is taken.
    """
    if not run.is_dir() or not is_run(run):
        raise MemofastError(f"{run}: no run; give a folder such as runs/demo-TIME")
    if out.exists():
        raise MemofastError(f"{out} exists; choose another folder")
    if run.resolve() in out.resolve().parents:
        raise MemofastError(f"{out} lies in the run itself; choose another folder")
    if wrong := list(faults(run)):
        path, reason = wrong[0]
        raise MemofastError(f"{path} cannot be read ({reason}); restore it before the run is handed on")
    temporary = temporary_of(out)
    with writing(out):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(run, temporary, ignore=_unwanted)
            temporary.rename(out)
        except BaseException:
            remove(temporary)
            raise
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _unwanted(_: str, names: list[str]) -> list[str]:
    """The lock, and what is being put together or removed."""
    partial = (name for name in names if name.startswith(".") and name.endswith((".partial", ".deleted")))
    return [*partial, LOCK]

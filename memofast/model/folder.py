"""Folders that hold models: where in a run they lie, and of which architecture they are."""

from __future__ import annotations

import json
from pathlib import Path

from memofast.errors import MemofastError


def model_folder(folder: Path) -> Path:
    """The folder of the model itself, given that or the folder of the run that made it: of a pre-training the best
    checkpoint."""
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    steps = sorted(folder.glob("checkpoints/step-*"))
    if (folder / "config.json").is_file() or not steps:
        return folder
    try:
        best = json.loads((steps[-1] / "trainer.json").read_text())["best"]
    except (OSError, ValueError, KeyError):
        return steps[-1]
    return next((step for step in steps if int(step.name[5:]) == best), steps[-1])


def model_type(folder: Path) -> str | None:
    """The `model_type` in a model folder's `config.json`, None where it names none.

    Raises: `MemofastError` where the folder or the file is missing, or the file is not JSON.
    """
    if not folder.is_dir():
        raise MemofastError(f"{folder}: no such checkpoint folder; give the folder that holds config.json")
    try:
        found = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise MemofastError(f"{folder}: no config.json; give the folder that save_pretrained wrote") from None
    except ValueError:
        raise MemofastError(
            f"{folder / 'config.json'}: not valid JSON; restore it or give another checkpoint"
        ) from None
    return found.get("model_type") if isinstance(found, dict) else None

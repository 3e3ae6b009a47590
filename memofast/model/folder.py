"""Folders that hold models: where in a run they lie, and of which architecture they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def load_whole(load: Callable[..., tuple[Any, dict]], folder: Path | str, may_begin_anew: str = "$^") -> Any:
    """A model from its folder with every weight that it needs.

    Args: load: `from_pretrained` of a transformers class, bound to what it is given but for what it shall tell.
        may_begin_anew: pattern of parameters that the folder need not have.
    Raises: `MemofastError` where the weights are missing, damaged, or not those of the configuration.
    """
    try:
        model, found = load(output_loading_info=True, ignore_mismatched_sizes=True)
    except MemofastError:
        raise
    except Exception as error:  # a damaged folder has as many kinds of error as libraries that read it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MemofastError(f"{folder}: the model does not load ({reason}); give the folder of a whole model") from None
    lacking = [name for name in found["missing_keys"] if not re.match(may_begin_anew, name)]
    other = [name for name, *_ in found["mismatched_keys"]]
    if lacking or other:
        names = sorted(lacking or other)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        what = "lack" if lacking else "have another shape of"
        raise MemofastError(
            f"{folder}: its weights {what} {names[0]}{more}, unlike the configuration; give the folder of a whole model"
        )
    return model, found

"""The folder of a run: where it is made, its resolved recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from memofast.data.demo import EMBEDDED
from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.locks import sweep_folders
from memofast.sections import Section
from memofast.train.plan import Plan
from memofast.train.recipe import Recipe
from memofast.train.recipe_text import read_yaml, to_yaml

CONFIG = "config.yaml"
TEXT_SETTINGS, TEXT_REPORT = "training.json", "report.json"  # of a run of emotion-text train


def make_folder(name: str, parent: Path = Path("runs")) -> Path:
    """A new folder `runs/NAME-TIME`, and those go that hold nothing. Raises `MemofastError` where it cannot be made."""
    sweep_folders(parent)
    stem = f"{Path(name).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        folder = parent / (stem + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise MemofastError(
                f"run folder {folder} cannot be made ({error.strerror}); start from another folder"
            ) from None
        return folder
    raise MemofastError(f"run folder {parent / stem} is taken; try again")


def resolved(plan: Plan) -> Recipe:
    """The plan's recipe with every size of the model and every path spelt out."""
    recipe = plan.recipe.model_copy(deep=True)
    for entry in recipe.corpora:
        if entry.path not in EMBEDDED:
            entry.path = str(Path(entry.path).resolve())
    recipe.model = recipe.model.spelt_out(plan.config)
    for name, objective in plan.objectives.items():
        if pooled := getattr(objective.options, "pooled", None):
            recipe.objectives[name]["pooled"] = str(Path(pooled).resolve())
    return recipe


def write_recipe(folder: Path, plan: Plan) -> None:
    write_config(folder, resolved(plan))


def write_config(folder: Path, recipe: Section) -> None:
    """Keep a resolved recipe in a run folder."""
    replace_file(folder / CONFIG, to_yaml(recipe.plain()).encode())


Kind = TypeVar("Kind", bound=Section)


def recipe_of(
    folder: Path, model: type[Kind], read: Callable[[str, Sequence[str]], Kind], overrides: Sequence[str] = ()
) -> Kind:
    """The recipe of an existing run, with overrides. read: the reader of its kind of recipe.

    Raises: `MemofastError` where the folder holds no run, or its recipe is damaged: it has every section.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise MemofastError(f"{folder}: no run to resume ({CONFIG} is missing); give a folder such as runs/demo-TIME")
    try:
        given = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError):
        raise MemofastError(f"{path}: not a text file in UTF-8; restore it or start a new run") from None
    names = [field.alias or name for name, field in model.model_fields.items() if not field.exclude]
    if lacking := [name for name in names if not isinstance(given, dict) or name not in given]:
        raise MemofastError(f"{path}: lacks {', '.join(lacking)}, which memofast wrote; restore it or start a new run")
    return read(str(path), overrides)

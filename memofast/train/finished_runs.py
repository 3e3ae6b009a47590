"""What a fine-tuning run's folder says of it: its recipe, and which of its runs of folds and seeds are finished."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.metrics.sample_statistics import LOWER_IS_BETTER
from memofast.sections import Section, checked
from memofast.train.fine_tuning_recipe import FineTuneRecipe, read
from memofast.train.folder import CONFIG

DONE = "done.json"


class Done(Section):
    """What `done.json` says of a finished run."""

    fold: Annotated[str, Field(pattern=r"^[^/\x00]{1,200}$")]  # a folder
    seed: int
    selected_on: str
    best_update: int
    updates: int
    metric: str
    score: float | None
    train: int
    seconds: float
    precision: str
    settings: dict[str, Any] = Field({})  # that a search chose


def run_of(folder: Path) -> Path | None:
    """The run that a folder is, or whose `model` it is; None for a model that stands alone, as in a file.

    Raises: `MemofastError` where there is no such folder.
    """
    if folder.is_file():
        return None
    if not folder.is_dir():
        raise MemofastError(
            f"no run or model at {folder}; give the folder of a run of memofast finetune, or of a model"
        )
    resolved = folder.resolve()
    own = (place for place in (resolved, resolved.parent) if place == resolved or resolved.name == "model")
    return next((place for place in own if (place / CONFIG).is_file()), None)


def recipe_of_run(run: Path) -> FineTuneRecipe:
    """The recipe of a fine-tuning run. Raises: `MemofastError` where it is that of something else."""
    try:
        return read(str(run / CONFIG))
    except MemofastError as error:
        raise MemofastError(f"{run} is no run of memofast finetune ({error}); give one") from None


def finished(run: Path) -> list[dict[str, Any]]:
    """What `done.json` of every finished fold and seed says, in the order in which they ran.

    Raises: `MemofastError` where nothing is finished.
    """
    seeds = recipe_of_run(run).train.seeds
    done = [read_done(path) for path in run.glob(f"*/seed-*/{DONE}")]
    if not done:
        raise MemofastError(f"no fold of run {run} is finished; go on with memofast finetune --resume {run}")
    if unknown := {one["seed"] for one in done} - {*seeds}:
        raise MemofastError(
            f"run {run} holds seed {min(unknown)}, which its {CONFIG} does not name; put both back as they were"
        )
    return sorted(done, key=lambda one: (len(one["fold"]), one["fold"], seeds.index(one["seed"])))


def read_done(path: Path) -> dict[str, Any]:
    """What a finished run came to. Raises: `MemofastError` where the file is damaged."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        values = None
    try:
        checked(values, str(path), Done)
    except MemofastError as error:
        raise MemofastError(f"{error}; remove {path} to repeat this run") from None
    return values


def best_of(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the finished runs, in their order, the one whose model is kept: that with the best validation, the first where
    nothing chose.

    A run whose metric was never a number, as a correlation of equal answers is none, is kept only where no other one
    has a score.
    """
    scored = [run for run in done if run["score"] is not None]
    if not scored:
        return done[0]
    return max(scored, key=lambda run: -run["score"] if run["metric"] in LOWER_IS_BETTER else run["score"])

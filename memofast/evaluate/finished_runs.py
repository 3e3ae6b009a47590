"""What a fine-tuning run kept in its folder: which runs of folds and seeds are finished, and their predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memofast.data.conditions import CONDITIONS
from memofast.errors import MemofastError
from memofast.evaluate.results import Run
from memofast.metrics.predictions import Predictions
from memofast.train.fine_tuning_recipe import FineTuneRecipe, read
from memofast.train.fine_tuning_run import DONE, answers_file, read_done
from memofast.train.folder import CONFIG

PARTS = ("validation", "test")


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


def kept_predictions(run: Path) -> list[Run]:
    """The predictions of all finished folds and seeds, of their validation and test parts.

    Raises: `MemofastError` where there is none, or a file is broken.
    """
    found = []
    for done in finished(run):
        place = run / done["fold"] / f"seed-{done['seed']}"
        for part in PARTS:
            for condition in CONDITIONS:
                path = answers_file(place, part, condition)
                if path.is_file():
                    said = Predictions.load(path)
                    found.append(Run(done["fold"], done["seed"], condition, part, done["selected_on"], said))
    if not found:
        raise MemofastError(f"run {run} kept no predictions; evaluate its model with --corpus")
    return found

"""The predictions that a fine-tuning run kept in its folder."""

from __future__ import annotations

from pathlib import Path

from memofast.data.conditions import CONDITIONS
from memofast.errors import MemofastError
from memofast.evaluate.results import Run
from memofast.metrics.predictions import Predictions
from memofast.train.fine_tuning_run import answers_file
from memofast.train.finished_runs import finished

PARTS = ("validation", "test")


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

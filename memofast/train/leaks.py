"""Whether what a fine-tuning starts from, or learns by, has itself learnt from what chooses or tests it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from memofast.errors import MemofastError
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.fold_parts import Fold
from memofast.train.origin import Origin, origin_of


def lines_on_leaks(recipe: FineTuneRecipe, folds: Sequence[Fold]) -> list[str]:
    """Warnings about `model.init` and teachers, one a line; of a teacher also where nobody can say what it has seen."""
    lines = []
    if recipe.model.init and (origin := _origin(recipe.model.init)) is not None:
        lines += _leaks(f"model.init {recipe.model.init}", origin, folds)
    for name, loss in recipe.losses.items():
        for teacher in getattr(loss, "teachers", ()):
            what, origin = f"losses.{name}: teacher {teacher.path}", _origin(teacher.path)
            lines += _leaks(what, origin, folds) if origin is not None else []
            if origin is None or origin.fold is None:
                lines.append(f"{what}: what it learnt from is not known, samples tested here may be among it")
    return lines


def _leaks(what: str, origin: Origin, folds: Sequence[Fold]) -> Iterator[str]:
    """That both were chosen by the same validation part is as it should be, and not told."""
    for fold in folds:
        for part, split in {fold.selected_on: fold.validation, "test": fold.test}.items():
            for count, did in origin.shared(split, learnt_alone=part == "validation") if split is not None else ():
                said = f"{count:,} of the {len(split):,} samples of {part} (fold {fold.name}) {did}"
                yield f"{what}: {said}; numbers on {part} are too good"


def _origin(folder: str) -> Origin | None:
    """None: of a pre-training, or a run that is no longer there."""
    try:
        return origin_of(Path(folder))
    except MemofastError:
        return None

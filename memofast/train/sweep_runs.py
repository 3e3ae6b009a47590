"""The settings of a sweep, run: `settings/NN` is the folder of a fine-tuning each, finished ones are not repeated."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from memofast.errors import MemofastError
from memofast.train.fine_tuning_recipe import FineTuneRecipe, read
from memofast.train.finished_runs import DONE
from memofast.train.folder import CONFIG, recipe_of, write_config
from memofast.train.sweep_file import Setting, Sweep, write_sweep
from memofast.train.sweep_processes import LOG, Ended

Engine = Callable[[Sequence[Path]], Ended]  # folders -> see `run_local`
_TABLE = "results.md"  # the last file that a fine-tuning writes
_FAULT = 1  # exit code


def place_of(folder: Path, setting: Setting) -> Path:
    return folder / "settings" / setting.name


def write_settings(folder: Path, sweep: Sweep) -> None:
    """Keep the sweep's file and the recipe of every setting, where they are not kept yet.

    Raises: `MemofastError` for a recipe that is there and says otherwise, as its numbers would stand under wrong names.
    """
    write_sweep(folder, sweep)
    for setting in sweep.settings:
        place, recipe = place_of(folder, setting), setting.recipe.model_copy(update={"baselines": False})
        if not (place / CONFIG).exists():
            place.mkdir(parents=True, exist_ok=True)
            write_config(place, recipe)  # without baselines, which stand once beside the best
        elif recipe_of(place, FineTuneRecipe, read) != recipe:
            raise MemofastError(
                f"{place / CONFIG} is not the recipe of setting {setting}; remove {place} to run it again"
            )


def is_finished(place: Path, runs: Sequence[tuple[str, int]]) -> bool:
    """Whether every fold and seed of a setting is finished and its table written."""
    return (place / _TABLE).is_file() and all((place / fold / f"seed-{seed}" / DONE).is_file() for fold, seed in runs)


def run_settings(sweep: Sweep, folder: Path, engine: Engine, console: Console) -> dict[str, tuple[str, int]]:
    """Run what is not finished. Returns: by name of a setting that failed, why in a line, and its exit code; the others
    went on."""
    settings = {place_of(folder, setting): setting for setting in sweep.settings}
    runs = sweep.runs()
    left = [place for place in settings if not is_finished(place, runs)]
    if len(left) < len(settings):
        console.print(f"resuming: {len(settings) - len(left)} of {len(settings)} settings are finished")
    failed, ended = {}, len(settings) - len(left)
    with closing(engine(left)) as running:  # so that Ctrl-C ends them wherever it comes
        for place, code in running:
            setting = settings[place]
            if code is None:
                console.print(f"setting {setting} begins")
                continue
            ended += 1
            if code == 0 and is_finished(place, runs):
                console.print(f"setting {setting} is finished; {ended} of {len(settings)} have ended")
            else:
                failed[setting.name] = why(place, code), code
                console.print(f"setting {setting} failed: {failed[setting.name][0]}", style="bold yellow")
    return failed


def exit_code(failed: dict[str, tuple[str, int]]) -> int:
    """1 where a setting met a fault of memofast, 2 where one met anything else, 0 where none failed."""
    codes = {code for _, code in failed.values()}
    return _FAULT if _FAULT in codes else 2 if codes else 0


def why(place: Path, code: int) -> str:
    """What a fine-tuning that failed said last, in a line."""
    if code < 0:
        name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
        return f"ended by {name}, as the system does where memory is full; see {place / LOG}"
    try:
        lines = (place / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line.removeprefix("memofast finetune: ") for line in lines if line.startswith("memofast finetune: ")]
    last = said[-1] if said else next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    return last if said else f"{last}; see {place / LOG}"

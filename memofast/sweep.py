"""A grid of fine-tunings: `python -m memofast.sweep FILE [key=value ...]`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memofast.cli import run

if TYPE_CHECKING:
    from rich.console import Console

    from memofast.train.sweep_file import Sweep
    from memofast.train.sweep_runs import Engine


def main(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="mosi-lab-ablations, or YAML or TOML with recipe, set and search", show_default=False
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="fixed options, over those of the file, as corpus=FOLDER"),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes at once; 0: one, or one per GPU")] = 0,
    engine: Annotated[
        str, typer.Option(help="local, or ray: the cluster of RAY_ADDRESS, whose machines share the disk")
    ] = "local",
    resume: Annotated[Path | None, typer.Option(metavar="SWEEP", help="go on with the sweep in this folder")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="open every setting, list them, and stop")] = False,
) -> None:
    """Fine-tune with every combination of some options, and name the best by validation data alone.

    Example: memofast sweep sweep.yaml corpus=corpora/meld --workers 2, where sweep.yaml says

    recipe: finetune

    set: {folds.by: speaker, folds.count: 5}

    search: {train.lr: [1e-4, 1e-3], model.hidden_size: [32, 64]}, or in its place

    variants: [{}, {train.lr: 1e-3}, {model.hidden_size: 64, train.lr: 1e-4}]

    A sweep is kept in runs/sweep-TIME/: sweep.yaml, settings/NN with a run of memofast finetune each, results.md and
    results.json. Test numbers are given of the best setting only.
    """
    import sys

    from rich.console import Console
    from transformers.utils import logging

    from memofast.errors import MemofastError, nearest
    from memofast.evaluate.sweep_results import print_sweep, sweep_results, write_sweep_results
    from memofast.locks import lock_folder
    from memofast.train.folder import make_folder
    from memofast.train.sweep_file import SWEEP, read_sweep
    from memofast.train.sweep_runs import exit_code, run_settings, write_settings
    from memofast.train.tracking import library_of

    logging.disable_progress_bar()
    if engine not in ("local", "ray"):
        raise MemofastError(f"--engine is local or ray, not {engine!r}{nearest(engine, ('local', 'ray'))}")
    if (file is None) == (resume is None):
        raise MemofastError("give the FILE of a sweep, or --resume SWEEP alone; memofast sweep --help shows a file")
    if resume and not (resume / SWEEP).is_file():
        raise MemofastError(f"{resume}: no sweep to resume ({SWEEP} is missing); give a folder such as runs/sweep-TIME")
    console = Console(highlight=False, soft_wrap=True)
    sweep = read_sweep(str(resume / SWEEP if resume else file), overrides or ())
    if (track := sweep.plan.recipe.train.track) and not resume:
        library_of(track)
    console.print(sweep.describe(), markup=False)
    chosen = _engine(engine, sweep, workers, console)
    if dry_run:
        return
    folder = resume or make_folder("sweep")
    with lock_folder(folder):
        write_settings(folder, sweep)
        try:
            failed = run_settings(sweep, folder, chosen, console)
        except (KeyboardInterrupt, SystemExit):
            print(f"what runs is saved; continue with memofast sweep --resume {folder}", file=sys.stderr)
            raise
        results = sweep_results(sweep, folder, {name: line for name, (line, _) in failed.items()}, console)
        write_sweep_results(results, folder)
    print_sweep(results, folder, console)
    if failed:
        print(
            f"memofast sweep: {len(failed)} of {len(sweep.settings)} settings failed ({', '.join(failed)}); "
            f"memofast sweep --resume {folder} tries them again",
            file=sys.stderr,
        )
        raise typer.Exit(exit_code(failed))


def _engine(name: str, sweep: Sweep, workers: int, console: Console) -> Engine:
    """What runs the settings, here said. Raises: `MemofastError` where there is no GPU, or no Ray."""
    from memofast.prepare.run.ray_engine import load_ray
    from memofast.train.sweep_processes import Resources, run_local, run_ray

    options = sweep.plan.recipe.train
    if name == "ray":
        load_ray()
        return partial(run_ray, workers=workers, device=options.device, threads=options.threads or 1)
    resources = Resources.here(workers, options.device, options.threads)
    console.print(resources.describe(), markup=False)
    return partial(run_local, resources=resources)


if __name__ == "__main__":
    run(main, "memofast sweep")

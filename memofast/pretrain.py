"""Pre-train a model: `python -m memofast.pretrain [RECIPE] [key=value ...]`."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run
from memofast.errors import MemofastError


def main(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE [+ RECIPE]...] [KEY=VALUE]...",
            help="demo (default), memobert-base, memobert-mini or a YAML or TOML file, with fragments such as matching "
            "or more files joined by +; then overrides such as train.lr=3e-5; memofast recipe --list shows them all",
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="continue the run in this folder")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="open everything, print what would run, and stop")] = False,
) -> None:
    """Pre-train on one or more corpora; without a recipe, on the embedded demo.

    Example: python -m memofast.pretrain memobert-mini corpora.0.path=CORPUS train.lr=1e-4

    A run is kept in runs/RECIPE-TIME/: config.yaml, metrics.jsonl, TensorBoard events, checkpoints and report.md.
    Several processes: torchrun --nproc-per-node 2 -m memofast.pretrain ...
    """
    from memofast.locks import lock_folder
    from memofast.train import recipe as recipes
    from memofast.train.dry_run import describe
    from memofast.train.folder import make_folder, recipe_of
    from memofast.train.plan import make_plan
    from memofast.train.processes import Processes
    from memofast.train.recipe_file import split_arguments
    from memofast.train.session import train
    from memofast.train.tracking import library_of

    names, overrides = split_arguments(arguments or [])
    if resume and names:
        raise MemofastError(f"--resume continues with the run's own recipe; leave out {names[0]} or start a new run")
    names = names or ["demo"]
    chosen = recipe_of(resume, recipes.Recipe, recipes.read, overrides) if resume else recipes.read(names, overrides)
    if chosen.train.track and not resume:
        library_of(chosen.train.track)
    if dry_run:
        print(describe(make_plan(chosen)))
        return
    processes = Processes.join(chosen.train)
    try:
        plan = make_plan(chosen)
        folder = resume or processes.from_first(make_folder(names[0]) if processes.first else None)
        with lock_folder(folder, processes.first):
            train(plan, folder, processes)
    finally:
        processes.leave()


if __name__ == "__main__":
    run(main, "memofast pretrain")

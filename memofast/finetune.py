"""Fine-tune an emotion model: `python -m memofast.finetune RECIPE [key=value ...]`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memofast.cli import run

if TYPE_CHECKING:
    from rich.console import Console

    from memofast.train.fine_tuning_plan import FineTuningPlan


def main(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE [+ RECIPE]...] [KEY=VALUE]...",
            help="finetune, finetune-memobert or a YAML or TOML file, several joined by +; then overrides such as "
            "corpus=FOLDER train.lr=5e-5; nothing at all: finetune-demo; memofast recipe --list shows them all",
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="go on with the run in this folder")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="open everything, print what would run, and stop")] = False,
) -> None:
    """Fine-tune on every fold with every seed, evaluate, and print one table.

    Example: python -m memofast.finetune corpus=corpora/meld model.init=runs/memobert-mini train.seeds=[42,43,44]

    A run is kept in runs/RECIPE-TIME/: config.yaml, per fold and seed metrics.jsonl and predictions, results.md,
    results.json, and the best model.
    Several processes: torchrun --nproc-per-node 2 -m memofast.finetune ...
    """
    import torch
    from rich.console import Console

    from memofast.errors import MemofastError
    from memofast.locks import lock_folder
    from memofast.train.fine_tuning_plan import make_fine_tuning_plan
    from memofast.train.fine_tuning_recipe import FineTuneRecipe, read, said_of_changes
    from memofast.train.fine_tuning_runs import fine_tune
    from memofast.train.folder import make_folder, recipe_of, write_config
    from memofast.train.nested_search import minutes_of
    from memofast.train.processes import Processes
    from memofast.train.recipe_file import split_arguments
    from memofast.train.tracking import library_of

    console = Console(highlight=False, soft_wrap=True, quiet=int(os.environ.get("RANK", 0)) > 0)
    names, overrides = split_arguments(arguments or [])
    if resume and arguments:
        raise MemofastError(
            "--resume goes on with the run's own recipe; leave out the other arguments or start a new run"
        )
    names = names or ["finetune" if overrides else "finetune-demo"]
    recipe = recipe_of(resume, FineTuneRecipe, read) if resume else read(names, overrides)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    recipe = said_of_changes(recipe, overrides)
    if recipe.train.track and not resume:
        library_of(recipe.train.track)
    plan = make_fine_tuning_plan(recipe)
    console.print(plan.describe())
    if plan.candidates and not resume and not int(os.environ.get("RANK", 0)):
        console.print(f"timing a few updates with each of {len(plan.candidates)} settings")
        console.print(f"about {minutes_of(plan):.1f} minutes of updates on this machine, all runs together")
    if dry_run:
        return
    processes = Processes.join(recipe.train)
    try:
        folder = resume or processes.from_first(make_folder(names[0]) if processes.first else None)
        with lock_folder(folder, processes.first):
            if processes.first:
                write_config(folder, plan.resolved())
            fine_tune(plan, folder, console, processes)
            if processes.first:
                _conclude(plan, folder, console)
    finally:
        processes.leave()


def _conclude(plan: FineTuningPlan, folder: Path, console: Console) -> None:
    """Keep how the model's inputs were prepared, and write the table of all runs."""
    from memofast.evaluate.baseline_report import with_baselines
    from memofast.evaluate.how_chosen import how_chosen
    from memofast.evaluate.results import Run, results_of
    from memofast.evaluate.results_table import print_results, write_results
    from memofast.inference.preparation import keep_preparation
    from memofast.train.fine_tuning_plan import words_from
    from memofast.train.fine_tuning_runs import answers

    keep_preparation(plan.corpus, plan.train, folder / "model", words_from(plan.recipe))
    predicted = [Run(*one) for one in answers(plan, folder)]
    if not predicted:
        console.print(f"wrote {folder / 'model'}; no table, as no fold has a part that is not trained on")
        return
    results = with_baselines(results_of(predicted, trivial=plan.trivial()), plan, predicted, folder, console)
    results["warnings"] += plan.leaks
    results["chosen"] = how_chosen(plan.recipe, folder, [fold.name for fold in plan.folds])
    print_results(results, console)
    write_results(results, folder, f"{folder.name}: {plan.corpus.name}")
    console.print(f"wrote {folder / 'results.md'}, {folder / 'results.json'} and {folder / 'model'}")


if __name__ == "__main__":
    run(main, "memofast finetune")

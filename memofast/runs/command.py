"""The command `memofast runs`: which runs there are, and what is done with their folders."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup


class _Commands(TyperGroup):
    """A folder of runs in a command's place is told how it is given."""

    def resolve_command(self, context: typer.Context, arguments: list[str]):
        given = arguments[0]
        if given not in self.commands and Path(given).is_dir():
            context.fail(f"{given} is a folder; list the runs in it by --folder {given}")
        return super().resolve_command(context, arguments)


main = typer.Typer(
    cls=_Commands,
    add_completion=False,
    rich_markup_mode=None,
    help="List runs; clean, verify and export them.",
    invoke_without_command=True,
)

_RUNS = Path("runs")
Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="where the runs are")]
Filters = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="only runs whose column or recipe entry fits, as corpus=meld; * fits any"),
]


@main.callback(epilog="Example: memofast runs --sort validation --descending --filter corpus=meld")
def show(
    context: typer.Context,
    folder: Folder = _RUNS,
    filter: Filters = None,
    sort: Annotated[
        str, typer.Option(metavar="KEY", help="a column, or an entry of the recipe by its name, as train.lr")
    ] = "run",
    descending: Annotated[bool, typer.Option("--descending", help="the largest first")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """List runs with their corpora, state and scores: validation is the mean over folds and seeds of the metric that
    chose, test that of all modalities together."""
    if context.invoked_subcommand:
        return
    from memofast.runs.facts import matching, ordered, runs_below

    found = ordered(matching(runs_below(folder), filter or []), sort, descending)
    if as_json:
        for one in found:
            print(json.dumps(one.plain()))
        return
    from memofast.runs.listing import print_runs

    print_runs(found, folder)


@main.command(epilog="Example: memofast runs clean --keep-best --dry-run")
def clean(
    folder: Folder = _RUNS,
    filter: Filters = None,
    keep_best: Annotated[
        bool,
        typer.Option("--keep-best", help="of finished pre-trainings remove all checkpoints but the best: none goes on"),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and remove nothing")] = False,
) -> None:
    """Remove what nobody reads: leftovers of killed processes, checkpoints where that is asked for, and, of all runs
    together, weights that none is linked to."""
    from memofast.runs.cleaning import Removal, clean_weights
    from memofast.runs.cleaning import clean as clean_run
    from memofast.runs.facts import matching, runs_below
    from memofast.runs.listing import told_bytes

    def told(removals: list[Removal]) -> int:
        for one in removals:
            verb = "would remove" if dry_run else "removed"
            print(f"{verb} {one.path} ({told_bytes(one.bytes)}): {one.reason}")
        return sum(one.bytes for one in removals)

    total = 0
    for one in matching(runs_below(folder), filter or []):
        gone, left = clean_run(one, keep_best, dry_run)
        total += told(gone)
        if left:
            print(f"left {one.folder} as it is: {left}")
    total += told(clean_weights(folder, dry_run)) if not filter else 0
    print(f"{'would free' if dry_run else 'freed'} {told_bytes(total)}")


@main.command(epilog="Example: memofast runs verify runs/demo-20261129-205413")
def verify(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...", help="default: all below --folder")] = None,
    folder: Folder = _RUNS,
) -> None:
    """Read every file of runs: weights must be finite, logs and configurations whole, links must lead somewhere."""
    from memofast.errors import MemofastError
    from memofast.runs.facts import is_run, run_folders
    from memofast.runs.verification import changed_weights, faults

    for given in runs or ():
        if not given.is_dir() or not is_run(given):
            of_runs = f"; check the runs in it by --folder {given}" if given.is_dir() and run_folders(given) else ""
            raise MemofastError(f"{given}: no run{of_runs or '; give a folder such as runs/demo-TIME'}")
    chosen = runs or run_folders(folder)
    damaged = 0
    for path, reason in [] if runs else changed_weights(folder):
        damaged += 1
        print(f"{path}: {reason}")
    for one in chosen:
        wrong = list(faults(one))
        damaged += len(wrong)
        for path, reason in wrong:
            print(f"{path}: {reason}")
        print(f"{one}: {f'{len(wrong)} files are damaged' if wrong else 'whole'}")
    if damaged:
        raise MemofastError(f"{damaged} files are damaged; restore them, or start these runs anew")


@main.command(epilog="Example: memofast runs export runs/demo-20261129-205413 --out demo-run")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="folder to make")],
) -> None:
    """Copy a run to a folder of files alone, links followed, once all of it was read."""
    from memofast.runs.exporting import export_run
    from memofast.runs.listing import told_bytes

    print(f"wrote {out} ({told_bytes(export_run(run, out))})")

"""Runs as a table."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from memofast.runs.facts import RunFacts

_HEADINGS = ("run", "kind", "corpus", "family", "state", "metric", "validation", "test", "size")


def print_runs(runs: list[RunFacts], folder: Path) -> None:
    console = Console(highlight=False)
    if not runs:
        console.print(f"no such run in {folder}")
        return
    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for one in runs:
        scores = ["" if score is None else f"{score:.4f}" for score in (one.validation, one.test)]
        table.add_row(
            one.folder.name, one.kind, one.corpus, one.family, one.state, one.metric, *scores, told_bytes(one.bytes)
        )
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=10**4), table).maximum)
    console.print(table)  # a terminal wraps what is longer


def told_bytes(count: int) -> str:
    """As people say it, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"

"""A table before it is drawn: printed, and in Markdown."""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Section(NamedTuple):
    """A table before it is drawn: the first cell of each row is its name."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def print_section(section: Section, console: Console) -> None:
    """Print a table, never cutting a number short."""
    table = Table()
    for number, heading in enumerate(section.headings):
        table.add_column(escape(heading), justify="right" if number else "left", no_wrap=True)
    for row in section.rows:
        table.add_row(*map(escape, row))
    console.width = max(console.width, Console(width=1000).measure(table).maximum, len(section.title))
    console.print(section.title, markup=False, highlight=False)
    console.print(table)


def section_markdown(section: Section) -> str:
    lines = [section.headings, ("---", *["---:"] * (len(section.headings) - 1)), *section.rows]
    cells = (" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines)
    return f"**{section.title}**\n\n" + "".join(f"| {line} |\n" for line in cells)


def interval_text(value: dict[str, Any] | None) -> str:
    """A pooled score with its interval, - for none."""
    if value is None or value["mean"] is None:
        return "-"
    ends = "" if value["interval"] is None else " [{:.3f}, {:.3f}]".format(*value["interval"])
    return number_text(value["mean"]) + ends


def number_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

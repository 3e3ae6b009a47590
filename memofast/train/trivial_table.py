"""The comparison table: each objective beside its trivial predictor."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

HEADINGS = ("corpus", "objective", "targets", "loss", "trivial predictor", "its loss", "ratio")


def rows(scores: dict[tuple[str, str], dict], predictors: dict[str, str]) -> list[tuple[str, ...]]:
    """Cells of the table. scores: by (corpus, objective) `loss`, `targets` and, where there is one, `trivial`;
    predictors: name of each objective's."""
    return [
        (
            corpus,
            objective,
            f"{score['targets']:,}",
            f"{score['loss']:.4f}",
            predictors[objective],
            f"{score['trivial']:.4f}" if "trivial" in score else "-",
            f"{score['loss'] / score['trivial']:.3f}" if score.get("trivial") else "-",
        )
        for (corpus, objective), score in sorted(scores.items())
    ]


def show(cells: list[tuple[str, ...]], title: str) -> None:
    """Print the table, never cutting a name short."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number in (0, 1, 4) else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)


def markdown(cells: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells]) + "\n"

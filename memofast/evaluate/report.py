"""One evaluation as it is printed and kept: what it is of, tables, calibration, comparisons, a matrix; nothing is
written before all is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from memofast.errors import MemofastError
from memofast.evaluate.comparison_table import comparison_markdown, print_comparison
from memofast.evaluate.cross_corpus import cross_corpus_markdown, print_cross_corpus
from memofast.evaluate.reliability_plot import draw_reliability
from memofast.evaluate.results import Run, joined
from memofast.evaluate.results_table import marked, print_results, sections
from memofast.evaluate.section import Section, print_section, section_markdown
from memofast.files import replace_file, write_json
from memofast.metrics.calibration import calibration
from memofast.metrics.predictions import Predictions


@dataclass
class Evaluation:
    """model: its name, for pictures. about: lines that say which data and which checkpoints. results: of `results_of`;
    comparisons: of `compare`, with `title`, `names`, `selected_on`; matrices: of `cross_corpus`, with `condition`;
    calibration: of `calibrations`; predictions: by file name."""

    title: str
    model: str
    about: list[str]
    results: dict[str, Any] | None = None
    calibration: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    matrices: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[str, Predictions] = field(default_factory=dict)


def calibrations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Calibration by split, selection and condition, in their order, over all folds and seeds together; of values there
    is none.

    Returns: per row `condition`, `split`, `selected_on`, `runs`, and what `calibration` found under `selected on ...`.
    """
    groups: dict[tuple[str, str, str], list[Predictions]] = {}
    for run in runs:
        if run.predictions.kind != "regression":
            groups.setdefault((run.split, run.selected_on, run.condition), []).append(run.predictions)
    return [
        {"condition": condition, "split": split, "selected_on": selected_on, "runs": len(parts)}
        | {f"selected on {selected_on}": calibration(joined(parts))}
        for (split, selected_on, condition), parts in groups.items()
    ]


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    for line in evaluation.about:
        console.print(line, markup=False, highlight=False)
    if evaluation.results:
        print_results(evaluation.results, console)
    for section in _calibration_sections(evaluation.calibration):
        print_section(section, console)
    for found in evaluation.comparisons:
        console.print(found["title"], markup=False, highlight=False)
        print_comparison(found, *found["names"], console)
    for matrix in evaluation.matrices:
        console.print(f"condition {matrix['condition']}", markup=False, highlight=False)
        print_cross_corpus(matrix, console)


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write predictions, pictures, `results.json` and, last, `results.md`. Returns: what was written. Raises:
    `MemofastError` where it cannot be."""
    _make(folder)
    written = []
    for name, predictions in evaluation.predictions.items():
        written.append(folder / "answers" / f"{file_name(name)}.npz")
        predictions.save(written[-1])
    for row in _fullest(evaluation.calibration):
        written.append(folder / f"reliability-{file_name(row['split'])}-{row['condition']}.png")
        title = f"{evaluation.model}\n{row['condition']}, {row['split']}, selected on {row['selected_on']}"
        draw_reliability(row[f"selected on {row['selected_on']}"], written[-1], title)
    kept = {"about": evaluation.about, **(evaluation.results or {})}
    parts = ("calibration", "comparisons", "matrices")
    kept |= {name: getattr(evaluation, name) for name in parts if getattr(evaluation, name)}
    write_json(folder / "results.json", kept)
    replace_file(folder / "results.md", markdown(evaluation).encode())
    return [*written, folder / "results.json", folder / "results.md"]


def markdown(evaluation: Evaluation) -> str:
    """All of it but the predictions, in Markdown."""
    parts = [f"# {evaluation.title}\n", "".join(f"- {line}\n" for line in evaluation.about)]
    if evaluation.results:
        parts += map(section_markdown, sections(evaluation.results, every_confusion=True))
        parts.append("".join(f"- warning: {line}\n" for line in evaluation.results["warnings"]))
    parts += map(section_markdown, _calibration_sections(evaluation.calibration))
    for found in evaluation.comparisons:
        parts += [f"## {found['title']}\n", comparison_markdown(found, *found["names"])]
    for matrix in evaluation.matrices:
        parts += [f"## Condition {matrix['condition']}\n", cross_corpus_markdown(matrix)]
    return "\n".join(part for part in parts if part)


def _make(folder: Path) -> None:
    """Raises: `MemofastError` where results cannot be kept in this folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemofastError(f"{folder} cannot be made ({error.strerror}); choose another folder with --out") from None


def file_name(name: str) -> str:
    """A name of split or model as one plain part of a path."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.")


def _calibration_sections(rows: Sequence[dict[str, Any]]) -> list[Section]:
    tables: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for row in rows:
        found = row[f"selected on {row['selected_on']}"]
        values = (f"{found[name]:.3f}" for name in ("ece", "brier", "confidence", "accuracy"))
        cells = (marked(row["condition"], row), f"{found['answers']:,}", *values)
        tables.setdefault((row["split"], row["selected_on"]), []).append(cells)
    headings = ("condition", "answers", "ECE", "Brier", "mean confidence", "accuracy")
    return [
        Section(f"{split}, selected on {on}: calibration", headings, cells) for (split, on), cells in tables.items()
    ]


def _fullest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each split, the row whose condition shows most."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["split"] not in best or len(row["condition"]) > len(best[row["split"]]["condition"]):
            best[row["split"]] = row
    return list(best.values())

"""The results of folds, seeds and conditions as tables: printed, in Markdown, and as a file beside their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from memofast.evaluate.baseline_table import baseline_sections
from memofast.evaluate.how_chosen import lines_of_choice, section_of_search
from memofast.evaluate.results import numbers
from memofast.evaluate.section import Section, interval_text, number_text, print_section, section_markdown
from memofast.files import replace_file, write_json
from memofast.metrics.sample_statistics import METRICS, NAMES


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print what `results_of` found: scores, pooled scores, F1 by class, the confusion of the fullest condition,
    warnings."""
    for section in sections(results, every_confusion=False):
        print_section(section, console)
    for line in _chosen(results):
        console.print(line, markup=False, highlight=False)
    for line in results["warnings"]:
        console.print(f"warning: {line}", style="bold yellow", markup=False, highlight=False)


def results_markdown(results: dict[str, Any], title: str = "Results") -> str:
    """The same tables in Markdown, with the confusion of every condition."""
    parts = [f"# {title}\n", *map(section_markdown, sections(results, every_confusion=True))]
    if lines := _chosen(results):
        parts.append("".join(f"- {line}\n" for line in lines))
    if results["warnings"]:
        parts.append("".join(f"- warning: {line}\n" for line in results["warnings"]))
    return "\n".join(parts)


def _chosen(results: dict[str, Any]) -> list[str]:
    """Lines on what chose settings, update and seeds, where that is known."""
    return lines_of_choice(results["chosen"]) if "chosen" in results else []


def write_results(results: dict[str, Any], folder: Path, title: str = "Results") -> None:
    """Write `results.json` and `results.md`. Raises: `MemofastError` where they cannot be written."""
    write_json(Path(folder) / "results.json", results)
    replace_file(Path(folder) / "results.md", results_markdown(results, title).encode())


def sections(results: dict[str, Any], every_confusion: bool) -> Iterable[Section]:
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in results["rows"]:
        groups.setdefault((row["split"], row["selected_on"]), []).append(row)
    for (split, selected_on), rows in groups.items():
        chosen = f"selected on {selected_on}"
        yield _scores(results, rows, f"{split}, {chosen}")
        yield _pooled(results, rows, f"{split}, {chosen}")
        if results["classes"]:
            yield _by_class(results, rows, f"{split}, {chosen}")
        if results["kind"] == "single":
            for row in rows if every_confusion else rows[-1:]:
                yield _confusion(results, row, f"{split}, {chosen}")
    yield from baseline_sections(results)
    if search := results.get("chosen", {}).get("search"):
        yield section_of_search(search)


def _scores(results: dict[str, Any], rows: Sequence[dict], where: str) -> Section:
    folds, seeds = (max(len(row[name]) for row in rows) for name in ("folds", "seeds"))
    over = f"{folds} {_plural('fold', folds)} x {seeds} {_plural('seed', seeds)}"
    over = f"mean ± standard deviation over {over}" if folds * seeds > 1 else over
    predictor = "mean predictor" if results["kind"] == "regression" else "majority predictor"
    metrics = METRICS[results["kind"]]
    cells = [
        (marked(row["condition"], row), _runs(row), *(_spread(numbers(row)["runs"][name]) for name in metrics))
        for row in rows
    ]
    for conditions, majority in _majorities(rows):
        of = "" if len(conditions) == len(rows) else f" of {', '.join(conditions)}"
        cells.append((f"{predictor}{of}", "", *(number_text(majority[name]) for name in metrics)))
    return Section(
        f"{where}: {over}", ("condition", "runs", *(NAMES[name] for name in METRICS[results["kind"]])), cells
    )


def _runs(row: dict) -> str:
    return f"{row['runs']} ({row['collapsed']} collapsed)" if row["collapsed"] else str(row["runs"])


def _majorities(rows: Sequence[dict]) -> list[tuple[list[str], dict]]:
    """Scores of the majority predictor with the conditions they belong to: mostly one for all."""
    found: list[tuple[list[str], dict]] = []
    for row in rows:
        majority = numbers(row)["majority"]
        same = next((conditions for conditions, scores in found if scores == majority), None)
        if same is None:
            found.append(([row["condition"]], majority))
        else:
            same.append(row["condition"])
    return found


def _pooled(results: dict[str, Any], rows: Sequence[dict], where: str) -> Section:
    cells = []
    for row in rows:
        pooled = numbers(row)["pooled"] or {}
        scores = (interval_text(pooled.get(name)) for name in METRICS[results["kind"]])
        cells.append((marked(row["condition"], row), f"{row['samples']:,}", *scores))
    title = f"{where}: folds pooled, mean over seeds [95 % bootstrap interval over samples]"
    return Section(title, ("condition", "samples", *(NAMES[name] for name in METRICS[results["kind"]])), cells)


def _by_class(results: dict[str, Any], rows: Sequence[dict], where: str) -> Section:
    cells = [
        (
            marked(row["condition"], row),
            *(_spread(numbers(row)["f1"][name], counted=False) for name in results["classes"]),
        )
        for row in rows
    ]
    supports = rows[-1]["supports"]
    headings = [f"{name} ({supports[name]:,})" for name in results["classes"]]
    return Section(
        f"{where}: F1 by class (samples), over the runs that have the class", ("condition", *headings), cells
    )


def _confusion(results: dict[str, Any], row: dict, where: str) -> Section:
    confusion = numbers(row)["confusion"]
    cells = [(marked(name, row), *map(str, line)) for name, line in zip(results["classes"], confusion, strict=True)]
    runs = f"{row['runs']} {_plural('run', row['runs'])}"
    title = f"{where}: confusion of {row['condition']}, rows true, columns named, summed over {runs}"
    return Section(title, ("", *results["classes"]), cells)


def marked(name: str, row: dict) -> str:
    """A row's name, saying so where the checkpoint was chosen by the data it is tested on."""
    return f"{name} (selected on test)" if row["selected_on"] == "test" else name


def _spread(value: dict[str, Any], counted: bool = True) -> str:
    text = number_text(value["mean"]) + ("" if value["sd"] is None else f" ± {value['sd']:.3f}")
    return f"{text} ({value['undefined']} undefined)" if counted and value["undefined"] else text


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"

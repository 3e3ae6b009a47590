"""The comparison of two models as a table, printed and in Markdown."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from memofast.evaluate.section import Section, print_section, section_markdown
from memofast.metrics.sample_statistics import NAMES


def print_comparison(found: dict[str, Any], first: str, second: str, console: Console) -> None:
    """Print what `compare` found. first, second: names of the models; where a checkpoint was selected on test, the name
    must say so."""
    print_section(_section(found, first, second), console)
    for line in _mcnemar(found, first, second):
        console.print(line, markup=False, highlight=False)


def comparison_markdown(found: dict[str, Any], first: str, second: str) -> str:
    """The same in Markdown."""
    lines = "".join(f"\n{line}\n" for line in _mcnemar(found, first, second))
    return section_markdown(_section(found, first, second)) + lines


def _section(found: dict[str, Any], first: str, second: str) -> Section:
    rows = []
    for name, row in found["metrics"].items():
        values = (_number(row[which]) for which in ("first", "second"))
        ends = "-" if row["interval"] is None else "[{:+.3f}, {:+.3f}]".format(*row["interval"])
        rows.append((NAMES[name], *values, _number(row["difference"], "+.3f"), ends, _p(row["p"])))
    over = f"{found['groups']:,} groups ({found['by']})" if "by" in found else "samples"
    title = f"{second} against {first}, {found['samples']:,} samples, paired bootstrap over {over}"
    return Section(title, ("", first, second, "difference", "95 % interval", "p"), rows)


def _mcnemar(found: dict[str, Any], first: str, second: str) -> list[str]:
    if (test := found.get("mcnemar")) is None:
        return []
    counts = f"only {first} is right {test['only_first']:,} times, only {second} {test['only_second']:,} times"
    exact, approximate = _p(test["p_exact"]), _p(test["p_chi_square"])
    return [f"McNemar: {counts}; exact p {exact}, chi-square {test['chi_square']:.2f} with p {approximate}"]


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"

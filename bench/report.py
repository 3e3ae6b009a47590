"""Turns the JSON of `pytest bench --benchmark-json=FILE` into a speed report: `python bench/report.py FILE ... > REPORT.md`."""

import json
import sys
from pathlib import Path


def _time(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _spread(summary: dict, show) -> str:
    return f"{show(summary['median'])} [{show(summary['p20'])}, {show(summary['p80'])}]"


def _ratio(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def header(machine: dict, date: str) -> list[str]:
    facts = machine.get("memofast", {})
    return [
        f"- machine: {facts.get('cpu')}, {facts.get('threads')} threads; GPU: {facts.get('gpu')}; kernels: {facts.get('isa')}",
        f"- memofast {facts.get('memofast')} at {facts.get('commit')}, torch {facts.get('torch')}, Python {facts.get('python')}",
        f"- date: {date[:10]}; command: `pytest bench --benchmark-json=FILE && python bench/report.py FILE`",
        "- every row: median [20th, 80th percentile]; ours and the rival ran in turn in one process on the same inputs;",
        "  the ratio is the rival's time over ours, taken round by round",
    ]


def rows(benchmark: dict) -> list[str]:
    info = benchmark["extra_info"]
    lines = []
    for rival, ratio in info["ratios"].items():
        wanted = info["target"].get(rival)
        verdict = "" if wanted is None else f"{wanted:g}x {'met' if ratio['median'] >= wanted else '**not met**'}"
        cells = [benchmark["name"].removeprefix("test_"), rival, _spread(info["seconds"]["ours"], _time)]
        cells += [_spread(info["seconds"][rival], _time), _spread(ratio, _ratio), verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def facts(benchmark: dict) -> str:
    told = ", ".join(f"{name} {value}" for name, value in benchmark["extra_info"]["facts"].items())
    return f"- {benchmark['name'].removeprefix('test_')}: {told}" if told else ""


def report(paths: list[Path]) -> str:
    """Markdown of all measurements in the files, one table per file."""
    lines = ["# Speed"]
    for path in paths:
        data = json.loads(path.read_text())
        measured = [entry for entry in data["benchmarks"] if "ratios" in entry.get("extra_info", {})]
        lines += ["", *header(data["machine_info"], data["datetime"]), ""]
        lines += ["| what | rival | ours | rival's time | ratio | target |", "| --- | --- | --- | --- | --- | --- |"]
        for entry in measured:
            lines += rows(entry)
        lines += ["", *filter(None, map(facts, measured))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.stdout.write(report([Path(name) for name in sys.argv[1:]]))

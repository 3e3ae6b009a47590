"""Simple baselines as tables: beside the model where there is one, what was chosen, and the model against the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memofast.evaluate.results import numbers
from memofast.evaluate.section import Section, interval_text, number_text
from memofast.metrics.sample_statistics import METRICS, NAMES


def baseline_sections(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tables of results with `baselines`, see `baseline_report.baseline_results`; none of results without."""
    if "baselines" not in results:
        return
    yield _scores(results)
    if "against_baselines" in results:
        yield _differences(results["against_baselines"])
    chosen = [
        (f"{condition}, {name}", "; ".join(f"{setting} ({count})" for setting, count in sorted(counts.items())))
        for name, of in results["baseline_settings"].items()
        for condition, counts in of.items()
    ]
    yield Section("simple baselines: settings chosen inside the training part (folds)", ("", "setting"), chosen)


def _scores(results: Mapping[str, Any]) -> Section:
    metrics = METRICS[results["kind"]]
    rows = [("model", row) for row in results.get("rows", ()) if row["split"] == "test"]
    rows += [(name, row) for name, own in results["baselines"].items() for row in own["rows"]]
    order = list(dict.fromkeys(row["condition"] for _, row in rows))
    cells = []
    for name, row in sorted(rows, key=lambda one: order.index(one[1]["condition"])):
        scores = numbers(row)["pooled"] or {}
        on_test = " (selected on test)" if row["selected_on"] == "test" else ""
        values = (interval_text(scores.get(metric)) for metric in metrics)
        cells.append((f"{row['condition']}, {name}{on_test}", f"{row['samples']:,}", *values))
    majority = numbers(next(iter(results["baselines"].values()))["rows"][0])["majority"]
    predictor = "mean predictor" if results["kind"] == "regression" else "majority predictor"
    cells.append((predictor, "", *(number_text(majority[metric]) for metric in metrics)))
    title = "test, simple baselines: folds pooled, mean over seeds [95 % bootstrap interval over samples]"
    return Section(title, ("condition", "samples", *(NAMES[metric] for metric in metrics)), cells)


def _differences(found: Mapping[str, Any]) -> Section:
    metric, cells = NAMES[found["metric"]], []
    for row in found["rows"]:
        values = (number_text(row[name]) for name in ("model", "baseline"))
        difference = "-" if row["difference"] is None else f"{row['difference']:+.3f}"
        cells.append((row["condition"], row["best"], *values, difference, ends_text(row["interval"])))
    headings = ("condition", "best baseline", f"{metric} of the model", "of the baseline", "difference")
    title = f"test: the model against the best baseline, paired, 95 % bootstrap interval over {found['over']}; "
    title += "the best is chosen on this very test data, which favours the baseline"
    return Section(title, (*headings, "interval"), cells)


def ends_text(ends: list[float] | None) -> str:
    """An interval of a difference, - for none."""
    return "-" if ends is None else "[{:+.3f}, {:+.3f}]".format(*ends)

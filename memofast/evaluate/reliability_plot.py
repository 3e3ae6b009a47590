"""The reliability picture: accuracy over confidence above a histogram of confidences."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from memofast.files import replace_file
from memofast.pages.figures import named_figures

_BAR, _OVER, _UNDER, _INK = "#4878a8", "#e8a25c", "#9ccbe0", "#333333"
_NORMAL = 1.96  # standard deviations on each side of 95 %
_LEGEND = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "fontsize": 8, "borderaxespad": 0.2}


def draw_reliability(found: dict[str, Any], path: Path, title: str = "") -> None:
    """Write a PNG of what `calibration` found.

    Above: the share of answers that is right, by confidence, with 95 % intervals (Wilson); orange is confidence that is
    not earned, pale blue accuracy that was not claimed. Below: how many answers have each confidence, and the means of
    both. Raises: `MemofastError` where it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with named_figures(**{"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.8, 6), layout="constrained")
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_accuracy(upper, found)
        _draw_histogram(lower, found)
        measures = f"ECE {found['ece']:.3f}, Brier score {found['brier']:.3f}"
        figure.suptitle(f"{title}\n{measures}".strip(), fontsize=10, x=0.02, ha="left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
    replace_file(Path(path), buffer.getvalue())


def wilson(right: float, answers: int) -> tuple[float, float]:
    """Interval of a share that is `right` of so many answers, at 95 % (Wilson 1927): it stays in 0 to 1 and has a width
    where all are right."""
    square = _NORMAL**2 / answers
    middle = (right + square / 2) / (1 + square)
    half = _NORMAL / (1 + square) * (right * (1 - right) / answers + square / (4 * answers)) ** 0.5
    return max(0.0, min(right, middle - half)), min(
        1.0, max(right, middle + half)
    )  # rounding must not pass by the share itself


def _draw_accuracy(axis, found: dict[str, Any]) -> None:
    rows = [row for row in found["bins"] if row["answers"]]
    middles = [(row["above"] + row["up_to"]) / 2 for row in rows]
    bar = {"width": 1 / len(found["bins"]), "linewidth": 0.6, "edgecolor": "white"}
    low = [min(row["confidence"], row["accuracy"]) for row in rows]
    axis.bar(middles, low, color=_BAR, **bar)
    for colour, label, over in ((_OVER, "too sure", True), (_UNDER, "not sure enough", False)):
        gaps = [
            abs(row["confidence"] - row["accuracy"]) if (row["confidence"] > row["accuracy"]) == over else 0
            for row in rows
        ]
        axis.bar(middles, gaps, bottom=low, color=colour, label=label, **bar)
    accuracy = [row["accuracy"] for row in rows]
    ends = [wilson(row["accuracy"], row["answers"]) for row in rows]
    below = [at - end[0] for at, end in zip(accuracy, ends, strict=True)]
    beyond = [end[1] - at for at, end in zip(accuracy, ends, strict=True)]
    axis.plot([0, 1], [0, 1], color=_INK, linewidth=0.9, linestyle="--", label="perfect")
    axis.errorbar(
        middles, accuracy, yerr=[below, beyond], color=_INK, fmt="o", markersize=3.5, linewidth=1, capsize=2,
        clip_on=False, label="accuracy, 95 %",
    )  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    axis.legend(ncols=4, handlelength=1.4, columnspacing=1.2, **_LEGEND)


def _draw_histogram(axis, found: dict[str, Any]) -> None:
    middles = [(row["above"] + row["up_to"]) / 2 for row in found["bins"]]
    shares = [row["answers"] / found["answers"] for row in found["bins"]]
    axis.bar(middles, shares, width=1 / len(shares), color=_BAR, linewidth=0.6, edgecolor="white")
    for name, style in (("accuracy", "-"), ("confidence", ":")):
        axis.axvline(found[name], color=_INK, linewidth=1.4, linestyle=style, label=f"mean {name} {found[name]:.3f}")
    axis.set(ylabel="share of answers", xlabel=f"confidence ({found['answers']:,} answers)")
    axis.legend(ncols=2, handlelength=1.8, **_LEGEND)

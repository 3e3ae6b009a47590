"""The timeline picture of one file: probabilities of the classes over time, which class was named, and how much each
modality mattered."""

import io
from collections.abc import Sequence
from pathlib import Path

from memofast.files import replace_file
from memofast.inference.prediction import Prediction
from memofast.inference.stretches import drawable, one_each
from memofast.pages.drawing import class_colours
from memofast.pages.figures import named_figures

# those of the pages: grey, amber, blue, red, purple, orange, green, brown, teal, pink
COLOURS = ("#8e959e", "#e5a823", "#4479d4", "#cf4a43", "#8b5fc7", "#e57f3c", "#5b9e4d", "#9a6a4f", "#2fa3b5", "#d873a8")
_MODALITY_COLOURS = {"text": "#4878a8", "visual": "#e8a25c", "speech": "#5d9c68"}
_MINUTES_FROM = 180.0  # seconds
_LABELLED = 40  # utterances whose class is written above


def draw_timeline(predictions: Sequence[Prediction], classes: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG of the predictions of one file, which have times, one for each utterance. Raises: `MemofastError`
    where it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = one_each(p for p in predictions if p.start is not None and p.end is not None)
    last = max((p.end for p in timed), default=1.0)
    timed, stretch = drawable(timed, last)
    minutes = last > _MINUTES_FROM
    scale = 60.0 if minutes else 1.0
    with named_figures(**{"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
        if timed and timed[0].value is not None:
            _draw_values(upper, timed, scale)
        else:
            _draw_shares(upper, timed, classes, scale)
        _draw_importance(lower, timed, scale)
        unit = "minutes" if minutes else "seconds"
        lower.set(xlim=(0, last / scale), xlabel=f"{unit} (means over {stretch:.0f} s)" if stretch else unit)
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
    replace_file(path, buffer.getvalue())


def _draw_shares(axis, timed: Sequence[Prediction], classes: Sequence[str], scale: float) -> None:
    colours = class_colours(list(classes))
    starts, widths = _spans(timed, scale)
    bottom = [0.0] * len(timed)
    for name in classes:
        heights = [p.probabilities[name] / max(sum(p.probabilities.values()), 1e-9) for p in timed]
        axis.bar(
            starts, heights, widths, bottom=bottom, align="edge", color=COLOURS[colours[name]], linewidth=0, label=name
        )
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    if len(timed) <= _LABELLED:
        for found, start, width in zip(timed, starts, widths, strict=True):
            axis.text(
                start + width / 2, 1.02, found.named, ha="center", va="bottom", fontsize=8,
                rotation=90 if len(timed) > 8 else 0,
            )  # fmt: skip
    axis.set(ylim=(0, 1), ylabel="probability")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True)


def _draw_values(axis, timed: Sequence[Prediction], scale: float) -> None:
    starts, widths = _spans(timed, scale)
    axis.bar(starts, [p.value for p in timed], widths, align="edge", color=COLOURS[2], linewidth=0)
    axis.axhline(0, color="#333333", linewidth=0.8)
    axis.set(ylabel="value")


def _draw_importance(axis, timed: Sequence[Prediction], scale: float) -> None:
    starts, widths = _spans(timed, scale)
    for place, (modality, colour) in enumerate(_MODALITY_COLOURS.items()):
        shown = [i for i, p in enumerate(timed) if modality in p.importance]
        if shown:
            axis.bar(
                [starts[i] + widths[i] * (0.1 + 0.27 * place) for i in shown],
                [timed[i].importance[modality] for i in shown],
                [0.27 * widths[i] for i in shown], align="edge", color=colour, linewidth=0, label=modality,
            )  # fmt: skip
    axis.axhline(0, color="#333333", linewidth=0.8)
    axis.set(ylabel="what it adds")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        axis.text(0.01, 0.5, "one modality only: nothing to compare", transform=axis.transAxes, va="center")
        axis.set_yticks([])


def _spans(timed: Sequence[Prediction], scale: float) -> tuple[list[float], list[float]]:
    return [p.start / scale for p in timed], [(p.end - p.start) / scale for p in timed]

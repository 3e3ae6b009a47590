"""The plots of the speed report: share of the floor against the longest sequence, and the ladder of the whole step, and
the losses of both steps."""

from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from measurements import Run, unvouched


def draw(run: Run, passed: set[str], folder: Path) -> list[str]:
    """Write the plots that the run has data for, of what its tests vouch for. Returns: their file names."""
    run = replace(
        run,
        measurements=[row for row in run.measurements if not unvouched(row.tests, passed)],
        learning=[one for one in run.learning if not unvouched(one.tests, passed)],
    )
    return [name for name in (_floors(run, folder), _ladder(run, folder), _learning(run, folder)) if name]


def _floors(run: Run, folder: Path) -> str | None:
    series: dict[str, list[tuple[float, float]]] = {}
    for measured in run.measurements:
        floor = run.floor(measured)
        if floor is not None and "longest" in measured.facts:
            label = f"{measured.tests[0]} {measured.dtype}{' GPU' if measured.on_gpu else ''}"
            share = 100 * floor / measured.seconds["ours"]["median"]
            series.setdefault(label, []).append((measured.facts["longest"], share))
    if not series:
        return None
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for label, points in sorted(series.items()):
        axes.plot(*zip(*sorted(points), strict=True), marker="o", linestyle="none", label=label)
    axes.set(xlabel="longest sequence of the batch, rows", ylabel="share of the floor, %", ylim=(0, 100))
    axes.legend(frameon=False)
    return _saved(figure, folder / "floor.png")


def _ladder(run: Run, folder: Path) -> str | None:
    rungs = {m.name: m for m in run.measurements if "ladder" in m.facts}
    if not rungs:
        return None
    figure, axes = plt.subplots(len(rungs), figsize=(7, 0.5 + 3 * len(rungs)), layout="constrained", squeeze=False)
    for axis, (name, measured) in zip(axes[:, 0], rungs.items(), strict=True):
        names = [rung for rung in measured.facts["ladder"] if rung in measured.seconds]
        values = [measured.seconds[rung]["median"] * 1e3 for rung in names]
        axis.barh([n.replace("ours", "memofast") for n in names], values, color="tab:blue")
        axis.invert_yaxis()
        axis.set(xlabel="ms per step", title=name)
    return _saved(figure, folder / "ladder.png")


def _learning(run: Run, folder: Path) -> str | None:
    if not run.learning:
        return None
    rows, columns = len(run.learning), len(run.learning[0].objectives)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 2.8 * rows), layout="constrained", squeeze=False)
    for line, one in zip(axes, run.learning, strict=True):
        for axis, objective in zip(line, one.objectives, strict=True):
            for who in one.curves:
                values = one.of(objective, who)
                axis.plot(range(0, len(values) * columns, columns), values, label=who, alpha=0.8)
            axis.set(title=objective, xlabel="update", yscale="log")
            axis.title.set_fontsize(9)
    axes[0, 0].set_ylabel("loss")
    axes[0, 0].legend(frameon=False)
    return _saved(figure, folder / "learning.png")


def _saved(figure, path: Path) -> str:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path.name

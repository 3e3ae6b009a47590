"""`report.md`: what a run did, its table and its curves."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from memofast.files import replace_file
from memofast.objectives import Objective
from memofast.pages.figures import named_figures
from memofast.train import trivial_table as table
from memofast.train.metrics_log import read_metrics
from memofast.train.plan import Plan
from memofast.train.state import State

CURVES = "curves.png"


def cells(plan: Plan, state: State) -> list[tuple[str, ...]]:
    """Rows of the comparison table at the best validation."""
    predictors = {name: objective.predictor or "-" for name, objective in plan.objectives.items()}
    return table.rows(state.scores, predictors)


def coupled(objectives: Mapping[str, Objective]) -> dict[str, str]:
    """Whose samples are compared, by the objectives whose loss does that."""
    return {
        name: "the micro-batches of all ranks" if objective.gathers else "a micro-batch"
        for name, objective in objectives.items()
        if objective.couples
    }


def feature_lines(plan: Plan) -> list[str]:
    """Which feature set each modality reads."""
    return [f"{modality} rows: {own}, {own.width} wide" for modality, own in plan.features.items()]


def title(plan: Plan, state: State) -> str:
    return f"split {plan.recipe.validate_.split!r}, update {state.best}"


def write_report(folder: Path, plan: Plan, state: State, environment: dict) -> None:
    """Write `report.md` and its curves."""
    curves = _draw(folder, plan)
    split = plan.recipe.validate_.split
    lines = [
        f"# {folder.name}",
        "",
        f"Update {state.step} of {plan.recipe.train.updates}, {state.seconds:.0f} s in updates; "
        + ", ".join(f"{name} {value}" for name, value in environment.items())
        + ".",
        "",
        *(
            f"- corpus {part.corpus.name} (weight {part.corpus.weight:g}): {len(part.train):,} training samples"
            f" ({part.train.excluded:,} left out as too long), {len(part.validation):,} in split {split!r}"
            for part in plan.parts
        ),
        "",
    ]
    lines += [f"- {line}" for line in (*feature_lines(plan), *plan.said)]
    lines += [f"- {name}: its loss compares the samples of {of}" for name, of in coupled(plan.objectives).items()]
    lines += [""]
    if state.best_value is not None:
        lines += [
            f"The checkpoint of update {state.best} was chosen on split `{split}`: lowest mean over objectives (by "
            f"share) and corpora (by weight) {_ratio_or_loss(state)}, {state.best_value:.4f}. No test data was read.",
            "",
            f"Losses there ({title(plan, state)}):",
            "",
            table.markdown(cells(plan, state)),
        ]
    if curves:
        lines += [f"![losses]({CURVES})", ""]
    replace_file(folder / "report.md", "\n".join(lines).encode())


def _ratio_or_loss(state: State) -> str:
    """What `validation.relative_loss` took the mean of."""
    with_trivial = [objective for (_, objective), values in state.scores.items() if "trivial" in values]
    if not with_trivial:
        return "of the loss, as none has a trivial predictor"
    without = sorted({objective for _, objective in state.scores} - set(with_trivial))
    left_out = f", {', '.join(without)} left out, as without one" if without else ""
    return f"of the loss divided by the trivial predictor's (a ratio r above 1 counts as 2 - 1/r){left_out}"


def _draw(folder: Path, plan: Plan) -> bool:
    """Loss over updates, one panel per objective. Returns: whether there was anything to draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = [entry for entry in read_metrics(folder / "metrics.jsonl") if isinstance(entry.get("loss"), (int, float))]
    names = [name for name in plan.objectives if any(entry["objective"] == name for entry in entries)]
    if not names:
        return False
    with named_figures():
        figure, axes = pyplot.subplots(1, len(names), figsize=(4 * len(names), 3), squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            own = [entry for entry in entries if entry["objective"] == name]
            for corpus, split in sorted({(entry["corpus"], entry["split"]) for entry in own}):
                points = [entry for entry in own if (entry["corpus"], entry["split"]) == (corpus, split)]
                label = f"{corpus} {split}"
                (line,) = axis.plot([p["step"] for p in points], [p["loss"] for p in points], label=label)
                if "trivial" in points[-1]:
                    colour = line.get_color()
                    axis.axhline(points[-1]["trivial"], color=colour, linestyle=":", label=f"{corpus} trivial")
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("update")
            axis.legend(fontsize=7)
        figure.tight_layout()
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=110)
        pyplot.close(figure)
    replace_file(folder / CURVES, drawn.getvalue())
    return True

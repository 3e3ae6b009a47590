"""Models of one corpus tested on another: labels mapped by a written map, and the matrix of corpora.

Sentiment values need no map. A model and a corpus that name emotions differently meet in `Predictions` whose classes
are the model's, then the corpus's own (probability 0). A label map says which class of the corpus each class of the
model is, None for one that the corpus does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from memofast.errors import MemofastError
from memofast.evaluate.results import check_selected_on
from memofast.evaluate.section import Section, print_section, section_markdown
from memofast.metrics.paired_variants import against_first, difference_text
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import METRICS, NAMES, scored
from memofast.metrics.scores import scores_of

LabelMap = Mapping[str, str | None]
Pair = tuple[str, str]  # trained on, tested on


def foreign_predictions(
    ids: Sequence[str],
    scores: np.ndarray,
    classes: Sequence[str],
    truth: Sequence[str | None],
    corpus_classes: Sequence[str],
) -> Predictions:
    """What a model of some classes said of a corpus of others, for `with_labels_of`.

    Args: scores [n, classes] probabilities; truth: a class of the corpus for each sample, None where unknown.
    Raises: `MemofastError` for a truth that is no class of the corpus.
    """
    if unknown := sorted({name for name in truth if name is not None} - set(corpus_classes)):
        raise MemofastError(f"true class {unknown[0]!r} is none of the corpus's {', '.join(corpus_classes)}")
    both = tuple(dict.fromkeys((*classes, *corpus_classes)))
    widened = np.zeros((len(ids), len(both)), np.float32)
    widened[:, : len(classes)] = scores
    numbers = np.array([-1 if name is None else both.index(name) for name in truth], np.int64)
    return Predictions("single", tuple(ids), numbers, widened, both)


def with_labels_of(predictions: Predictions, labels: LabelMap) -> tuple[Predictions, dict[str, Any]]:
    """Predictions in the classes of the corpus, and what was left out.

    Probabilities of classes that mean the same are summed; those of classes mapped to None are left out and the rest
    scaled to sum 1, so that the model names its best class among those the corpus has. Samples whose true class no
    class of the model stands for are left out.

    Returns: predictions over the samples that stay; `unknown`: samples without truth; `samples`: left out, by true
        class; `named`: how many of the samples that stay the model would have given a class that is mapped to None;
        `probability`: the mean that was left out of them.
    Raises: `MemofastError` where a class that has probability is not in the map, or the map names a class that is not
        there.
    """
    known = scored(predictions)
    if known.kind != "single":
        raise MemofastError(
            f"labels of {known.kind} predictions cannot be mapped; a label map is for one class of several"
        )
    used = [name for number, name in enumerate(known.classes) if known.scores[:, number].any()]
    if missing := [name for name in used if name not in labels]:
        raise MemofastError(f"the label map leaves {missing[0]!r} open; map it to a class of the corpus or to null")
    targets = list(dict.fromkeys(name for name in labels.values() if name is not None))
    if unknown := [name for name in (*labels, *targets) if name not in known.classes]:
        raise MemofastError(f"the label map names {unknown[0]!r}; there are {', '.join(known.classes)}")
    if not targets:
        raise MemofastError("the label map maps every class to null; map at least one to a class of the corpus")
    reached = np.array([name in targets for name in known.classes])
    stays = reached[known.truth]
    counts = np.bincount(known.truth[~stays], minlength=len(known.classes))
    lost = {name: int(count) for name, count in zip(known.classes, counts, strict=True) if count}
    if not stays.any():
        raise MemofastError(
            f"no sample is left: no class of the model stands for {', '.join(lost)}; check the label map"
        )
    kept = known.at(np.flatnonzero(stays))
    left_out = {"unknown": len(predictions.ids) - len(known.ids), "samples": lost, **_left_out(kept, labels)}
    return _mapped(kept, labels, targets), left_out


def cross_corpus(
    predictions: Mapping[Pair, Predictions],
    maps: Mapping[Pair, LabelMap],
    metric: str = "ua",
    selected_on: str | Mapping[Pair, str] = "validation",
    trivial: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The matrix of a metric over (trained on, tested on), as JSON can hold it.

    Args:
        predictions: `foreign_predictions`, or a corpus's own, which needs no map where a model is tested on what it was
        trained on.
        selected_on: what chose the checkpoints, of all cells or by pair; `test` is printed with every number.
        trivial: by tested corpus, what the trivial predictor always says (see `scores_of`).

    Returns: `metric`, `selected_on` (None where cells differ), `trained_on` and `tested_on` in their first order,
        `cells`: `trained_on`, `tested_on`, `samples`, `left_out` (see `with_labels_of`), `collapsed`, `selected_on` and
        under `selected on ...` `value`, `majority`, and less the first model on the same samples `difference` and its
        `interval` (95 %, see `against_first`); `warnings` (lines).
    Raises: `MemofastError` for a missing map, an unknown metric, and as `with_labels_of`.
    """
    if not predictions:
        raise MemofastError("there are no predictions to put into a matrix; evaluate a model on a corpus first")
    by_pair = dict.fromkeys(predictions, selected_on) if isinstance(selected_on, str) else selected_on
    for pair in predictions:
        check_selected_on(by_pair[pair])
    cells, warnings, said = [], [], {}
    for (trained_on, tested_on), given in predictions.items():
        pair = f"{trained_on} on {tested_on}"
        try:
            mapped, left_out = _cell_predictions((trained_on, tested_on), given, maps)
            scores = scores_of(mapped, trivial=(trivial or {}).get(tested_on))
        except MemofastError as error:
            raise MemofastError(f"{pair}: {error}") from None
        if metric not in METRICS[mapped.kind]:
            raise MemofastError(f"{pair}: there is no metric {metric!r} of it, but {', '.join(METRICS[mapped.kind])}")
        said[trained_on, tested_on] = mapped
        cells.append(
            {
                "trained_on": trained_on,
                "tested_on": tested_on,
                "samples": scores["samples"],
                "left_out": left_out,
                "collapsed": scores["collapsed"],
                "selected_on": (chosen_by := by_pair[trained_on, tested_on]),
                f"selected on {chosen_by}": {"value": scores[metric], "majority": scores["majority"][metric]},
            }
        )
        warnings += _warnings(pair, cells[-1])
    trained = list(dict.fromkeys(pair[0] for pair in predictions))
    warnings += _compare(cells, said, trained[0], metric)
    return {
        "metric": metric,
        "selected_on": next(iter(set(by_pair.values()))) if len(set(by_pair.values())) == 1 else None,
        "trained_on": trained,
        "tested_on": list(dict.fromkeys(pair[1] for pair in predictions)),
        "cells": cells,
        "warnings": warnings,
    }


def print_cross_corpus(matrix: dict[str, Any], console: Console) -> None:
    """Print what `cross_corpus` found."""
    for section in _sections(matrix):
        print_section(section, console)
    for line in matrix["warnings"]:
        console.print(line, markup=False, highlight=False)


def cross_corpus_markdown(matrix: dict[str, Any]) -> str:
    """The same in Markdown."""
    tables = "\n".join(map(section_markdown, _sections(matrix)))
    return tables + "".join(["\n", *(f"- {line}\n" for line in matrix["warnings"])])


def _cell_predictions(
    pair: Pair, given: Predictions, maps: Mapping[Pair, LabelMap]
) -> tuple[Predictions, dict[str, Any]]:
    if pair in maps:
        return with_labels_of(given, maps[pair])
    if pair[0] != pair[1] and given.kind != "regression":
        raise MemofastError("there is no label map; write which class of the corpus each class of the model is")
    known = scored(given)
    return known, {"unknown": len(given.ids) - len(known.ids), "samples": {}, "named": 0, "probability": 0.0}


def _compare(cells: Sequence[dict[str, Any]], said: Mapping[Pair, Predictions], first: str, metric: str) -> list[str]:
    """Put the difference to the first model into every cell. Returns: lines about cells that cannot be compared."""
    lines, chosen_by = [], {(cell["trained_on"], cell["tested_on"]): cell["selected_on"] for cell in cells}
    for cell in cells:
        pair = cell["trained_on"], cell["tested_on"]
        found = cell[f"selected on {cell['selected_on']}"]
        found |= {"difference": None, "interval": None}
        if pair[0] == first or (first, pair[1]) not in said:
            continue
        found["first_selected_on"] = chosen_by[first, pair[1]]
        its = said[first, pair[1]]
        both = {first: {pair[1]: [its]}, pair[0]: {pair[1]: [_with_classes_of(its, said[pair])]}}
        try:
            compared = against_first(both, metric)[pair[0]]
        except MemofastError as error:
            lines.append(f"no difference to the first model: {error}")
        else:
            found |= {name: compared[name] for name in ("difference", "interval")}
    return lines


def _with_classes_of(first: Predictions, other: Predictions) -> Predictions:
    """The other predictions with the same classes in the order of the first; as they are where theirs are others."""
    if first.kind != "single" or other.kind != "single" or {*first.classes} != {*other.classes}:
        return other
    order = [other.classes.index(name) for name in first.classes]
    return Predictions("single", other.ids, np.argsort(order)[other.truth], other.scores[:, order], first.classes)


def _left_out(kept: Predictions, labels: LabelMap) -> dict[str, Any]:
    without = np.array([name in labels and labels[name] is None for name in kept.classes])
    return {
        "named": int(without[kept.named].sum()),
        "probability": float(kept.scores[:, without].sum(1, dtype=np.float64).mean()),
    }


def _mapped(kept: Predictions, labels: LabelMap, targets: list[str]) -> Predictions:
    classes = tuple(name for name in kept.classes if name in targets)
    scores = np.zeros((len(kept.ids), len(classes)), np.float64)
    for number, name in enumerate(kept.classes):
        if (target := labels.get(name)) is not None:
            scores[:, classes.index(target)] += kept.scores[:, number]
    total = scores.sum(1, keepdims=True)
    scores = np.where(total > 0, scores / np.maximum(total, 1e-300), 1 / len(classes))  # nothing left: all alike
    truth = np.array([classes.index(kept.classes[number]) for number in kept.truth], np.int64)
    return Predictions("single", kept.ids, truth, scores.astype(np.float32), classes)


def _warnings(pair: str, cell: dict[str, Any]) -> list[str]:
    left_out, lines = cell["left_out"], []
    if left_out["unknown"]:
        lines.append(f"{pair}: left out {left_out['unknown']:,} samples without a truth")
    if left_out["samples"]:
        classes = ", ".join(f"{count:,} {name}" for name, count in left_out["samples"].items())
        lines.append(f"{pair}: left out samples that no class of the model stands for: {classes}")
    if left_out["probability"]:
        lines.append(
            f"{pair}: left out classes that the corpus does not have: named for {left_out['named']:,} of "
            f"{cell['samples']:,} samples, mean probability {left_out['probability']:.3f}"
        )
    if cell["collapsed"]:
        lines.append(f"warning: {pair}: the model has collapsed, it says the same of every sample")
    return lines


def _sections(matrix: dict[str, Any]) -> list[Section]:
    """The scores, and where there are several models their differences to the first."""
    mark = " (selected on test)" if matrix["selected_on"] == "test" else ""  # of all cells: said once in a row
    chosen = dict.fromkeys(cell["selected_on"] for cell in matrix["cells"])
    name, selected = NAMES[matrix["metric"]], f"selected on {' or '.join(chosen)}"
    title = f"{name} (the majority predictor's), {selected}; rows trained on, columns tested on"
    first, *others = matrix["trained_on"]
    tables = [_table(matrix, title, [first, *others], mark, _score)]
    if others:
        title = f"{name} less that of {first} on the same samples, {selected} [95 % bootstrap interval]"
        tables.append(_table(matrix, title, others, mark, _difference))
    return tables


def _table(
    matrix: dict[str, Any], title: str, models: Sequence[str], mark: str, text: Callable[[dict[str, Any]], str]
) -> Section:
    cells = {(cell["trained_on"], cell["tested_on"]): cell for cell in matrix["cells"]}
    rows = [
        (f"{one}{mark}", *(_cell(cells.get((one, other)), not mark, text) for other in matrix["tested_on"]))
        for one in models
    ]
    return Section(title, ("", *matrix["tested_on"]), rows)


def _cell(cell: dict[str, Any] | None, marked: bool, text: Callable[[dict[str, Any]], str]) -> str:
    if cell is None:
        return "-"
    told = text(cell[f"selected on {cell['selected_on']}"])
    return told + (" selected on test" if marked and cell["selected_on"] == "test" and told != "-" else "")


def _score(found: dict[str, Any]) -> str:
    value, majority = (("-" if one is None else f"{one:.3f}") for one in (found["value"], found["majority"]))
    return f"{value} ({majority})"


def _difference(found: dict[str, Any]) -> str:
    first_saw = found["difference"] is not None and found["first_selected_on"] == "test"
    return difference_text(found) + (" (the first selected on test)" if first_saw else "")

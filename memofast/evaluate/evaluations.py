"""The evaluations that `memofast evaluate` makes, each with the folder that it belongs into; none writes anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memofast.data import Corpus, Split
from memofast.data.conditions import CONDITIONS
from memofast.data.feature_choice import parse_features, reading
from memofast.data.folds import open_split
from memofast.devices import choose_device
from memofast.errors import MemofastError
from memofast.evaluate.baseline import compare_kept, compare_predictions, names_of
from memofast.evaluate.baseline_report import kept_baselines, shown_beside
from memofast.evaluate.cross_corpus_runs import matrices, names_of_models, read_maps
from memofast.evaluate.how_chosen import how_chosen
from memofast.evaluate.kept_predictions import kept_predictions
from memofast.evaluate.model_on_corpus import (
    LabelMap,
    Opened,
    open_model,
    predict_on,
    target_on,
)
from memofast.evaluate.report import Evaluation, calibrations, file_name
from memofast.evaluate.results import Run, results_of
from memofast.inference.dialogues import as_read
from memofast.inference.split_predictions import truth_of
from memofast.model.compatibility import conditions_for
from memofast.model.feature_sets import unknown_feature_sets
from memofast.objectives.label_space import LabelSpace
from memofast.train.fine_tuning_plan import CHOOSES, lines_on_context
from memofast.train.finished_runs import finished, recipe_of_run, run_of
from memofast.train.fold_parts import make_folds, trivial_answers
from memofast.train.leaks import lines_on_leaks
from memofast.train.origin import origin_of, selection

Found = tuple[Evaluation, Path]


def of_kept(path: Path, split: str, asked: Sequence[str] | None, other: Path | None) -> Found:
    """What a run kept, all folds and seeds, as it was; nothing is computed anew but scores. Raises: `MemofastError`
    where there is none."""
    run = _required_run(path)
    origin, kept = origin_of(path), kept_predictions(run)
    if other:
        found = compare_kept(run, _required_run(other), split, asked)
        about = [f"kept predictions of {path} and {other}", *_chosen_by(run), *_chosen_by(_required_run(other))]
        evaluation = Evaluation(f"{other.resolve().name} against {run.name}", run.name, about, comparisons=found)
        return evaluation, run / f"evaluation/against-{file_name(other.resolve().name)}"
    if asked:
        kept = [one for one in kept if one.condition in asked]
        if lacking := [condition for condition in asked if condition not in {one.condition for one in kept}]:
            raise MemofastError(
                f"run {run} kept no predictions of condition {lacking[0]}; leave --conditions out to see all"
            )
    trivial, leaks, about = (
        None,
        [],
        [f"kept predictions of {path}, {len(finished(run))} finished folds and seeds", *_chosen_by(run)],
    )
    if origin.corpus is None:
        about.append(
            "the corpus is no longer there: the majority predictor is that of the tested samples, not of training"
        )
    else:
        recipe = recipe_of_run(run)
        target = LabelSpace.of_corpus(origin.corpus, recipe.target.kind, recipe.target.map)
        folds = make_folds(recipe, origin.corpus)
        trivial, leaks = trivial_answers(folds, target), lines_on_leaks(recipe, folds)
    results = results_of(kept, trivial)
    results["warnings"] += leaks
    results["chosen"] = how_chosen(recipe_of_run(run), run, list(dict.fromkeys(one["fold"] for one in finished(run))))
    if baselines := kept_baselines(run):
        results = shown_beside(results, baselines, asked)
    return Evaluation(f"{run.name}: kept predictions", run.name, about, results, calibrations(kept)), run / "evaluation"


def of_corpus(
    path: Path,
    corpus: Path,
    split: str,
    asked: Sequence[str] | None,
    labels: Sequence[str],
    other: Path | None,
    device: str,
    features: Sequence[str] = (),
) -> Found:
    """A model on one split of a corpus, under every condition; with `other` beside that of another model.

    labels: LABEL=CLASS each; features: MODALITY=STREAM each. Raises: `MemofastError` as the steps in `on_corpus`.
    """
    tested = open_split(reading(Corpus.open(corpus), parse_features(features)), split)
    opened, mapping = open_model(path, choose_device(device)), _parsed(labels)
    first = _runs_on(opened, tested, asked, mapping)
    about = [_data_line(opened, tested, mapping), *unknown_feature_sets(path, tested.corpus, opened.model.reads)]
    about += [opened.origin.describe(), *opened.origin.overlap(tested), *_lines_on_context(opened, tested)]
    name = f"{file_name(tested.corpus.name)}-{file_name(tested.name)}"
    title = f"{opened.origin.name} on {tested.corpus.name}, {tested.name}"
    folder = (opened.origin.run or (path.with_suffix("") if path.is_file() else path)) / "evaluation" / name
    predictions = {f"{tested.name}-{run.condition}": run.predictions for run in first}
    if other is None:
        results = results_of(first, _trivial(opened, tested.corpus, mapping))
        return Evaluation(
            title, opened.origin.name, about, results, calibrations(first), predictions=predictions
        ), folder
    second = open_model(other, choose_device(device))
    beside = _runs_on(second, tested, asked, mapping)
    about += unknown_feature_sets(other, tested.corpus, second.model.reads)
    about += [second.origin.describe(), *second.origin.overlap(tested), *_lines_on_context(second, tested)]
    names, selected = names_of(path, other), (first[0].selected_on, beside[0].selected_on)
    said = [{run.condition: run.predictions for run in runs} for runs in (first, beside)]
    found = compare_predictions(names, selected, tested.name, *said, asked)
    title = f"{names[1]} against {names[0]} on {tested.corpus.name}, {tested.name}"
    predictions = {
        f"{of}-{condition}": one for of, by in zip(names, said, strict=True) for condition, one in by.items()
    }
    folder = folder.with_name(f"{name}-against-{file_name(other.resolve().name)}")
    return Evaluation(title, opened.origin.name, about, comparisons=found, predictions=predictions), folder


def of_matrix(
    paths: Sequence[Path],
    corpora: Sequence[Path],
    split: str,
    asked: Sequence[str] | None,
    maps: Path | None,
    metric: str | None,
    device: str,
) -> Found:
    """Every model on every corpus. Raises: `MemofastError` as `across.matrices`."""
    written = read_maps(maps) if maps else {}
    opened = [open_model(path, choose_device(device)) for path in paths]
    tested = [open_split(Corpus.open(corpus), split) for corpus in corpora]
    models = dict(zip(names_of_models(opened), opened, strict=True))
    metric = metric or CHOOSES[opened[0].model.kind]
    found, predictions, lines = matrices(models, tested, written, asked, metric)
    about = [
        f"tested on {one.corpus.name} ({one.corpus.path}), split {one.name}, {len(one):,} samples" for one in tested
    ]
    for name, one in models.items():
        about += [f"{name}: {one.path}", one.origin.describe()]
        about += [line for part in tested for line in unknown_feature_sets(one.path, part.corpus, one.model.reads)]
        about += [line for part in tested for line in one.origin.overlap(part)]
        about += [f"{part.corpus.name}: {line}" for part in tested for line in _lines_on_context(one, part)]
    evaluation = Evaluation("Across corpora", "", about + lines, matrices=found, predictions=predictions)
    return evaluation, Path("runs") / f"across-{time.strftime('%Y%m%d-%H%M%S')}"


def _runs_on(opened: Opened, split: Split, asked: Sequence[str] | None, labels: LabelMap | None) -> list[Run]:
    conditions = conditions_for(opened.model, split.corpus, asked)
    found = predict_on(opened, split, target_on(opened, split.corpus, labels), conditions)
    fold, seed = opened.origin.done.get("fold", "-"), opened.origin.done.get("seed", 0)
    on = opened.origin.selected_on(split.corpus)
    where = f"{split.corpus.name}, {split.name}"
    return [Run(fold, seed, condition, where, on, found[condition]) for condition in CONDITIONS if condition in found]


def _trivial(opened: Opened, corpus: Corpus, labels: LabelMap | None) -> dict[str, Any] | None:
    """What the majority predictor of the model's own training part says; None on another corpus, where it is the
    commonest of what is tested."""
    if opened.origin.fold is None or not opened.origin.is_of(corpus):
        return None
    return trivial_answers([opened.origin.fold], target_on(opened, corpus, labels))


def _data_line(opened: Opened, split: Split, labels: LabelMap | None) -> str:
    target = target_on(opened, split.corpus, labels)
    truth = truth_of(split, target)
    unknown = {"single": lambda: truth < 0, "regression": lambda: truth != truth, "multi": lambda: truth < 0}[
        target.kind
    ]()
    line = f"tested on {split.corpus.name} ({split.corpus.path}), split {split.name}, {len(split):,} samples"
    if count := int(unknown.sum()):
        line += f", {count:,} of them without a class of the model"
    named = {label: name for label, name in (target.mapping or {}).items() if label != name}
    return line + "".join(f"; {label} is {name or 'left out'}" for label, name in named.items())


def _lines_on_context(opened: Opened, split: Split) -> list[str]:
    """What a model reads around the utterances of a corpus."""
    return lines_on_context(as_read(opened.model, split, opened.path).corpus)


def _chosen_by(run: Path) -> list[str]:
    """What chose the checkpoints of a run: one line, or one for each."""
    corpus = Path(recipe_of_run(run).corpus).name
    on = dict.fromkeys(done["selected_on"] for done in finished(run))
    return [f"{run.name}: every checkpoint was {selection(one, corpus)}" for one in on]


def _parsed(labels: Sequence[str]) -> dict[str, str | None] | None:
    found = {}
    for one in labels:
        label, equals, name = one.rpartition("=")
        if not equals or not label or not name:
            raise MemofastError(f"--map {one!r} is not LABEL=CLASS or LABEL=null")
        found[label] = None if name == "null" else name
    return found or None


def _required_run(path: Path) -> Path:
    if (run := run_of(path)) is None:
        raise MemofastError(f"{path} is a model without a run, which kept no predictions; add --corpus FOLDER")
    return run

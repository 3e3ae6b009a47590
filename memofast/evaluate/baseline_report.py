"""Simple baselines of a recipe of fine-tuning as a table, and which settings their folds chose."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from memofast.data import Corpus
from memofast.data.conditions import CONDITIONS, modalities_of
from memofast.data.demo import open_corpus
from memofast.data.feature_choice import reading
from memofast.errors import MemofastError
from memofast.evaluate.results import numbers, results_of
from memofast.evaluate.results_table import Section, interval_text, print_section, section_markdown
from memofast.evaluate.simple_baselines import simple_baselines
from memofast.files import replace_file, write_json
from memofast.metrics.sample_statistics import METRICS, NAMES
from memofast.model.compatibility import has_words
from memofast.objectives.label_space import LabelSpace
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.fold_parts import check_classes, make_folds, share_of_classes, trivial_answers


def baseline_results(recipe: FineTuneRecipe) -> dict[str, Any]:
    """Results of every baseline, as JSON can hold them.

    Returns: `kind`; `baselines`: by name what `results_of` gives; `settings`: by name and condition how often each
        setting was chosen.
    Raises: `MemofastError` as a plan of fine-tuning does for its corpus, folds and target, and where nothing is tested.
    """
    corpus = reading(open_corpus(recipe.corpus), recipe.modalities.features)
    target = LabelSpace.of_corpus(corpus, recipe.target.kind, recipe.target.map)
    folds = make_folds(recipe, corpus)
    for fold in folds:
        for seed in recipe.train.seeds:
            check_classes(fold, target, share_of_classes(fold.train, target, recipe.train.share, seed))
    if not any(fold.test for fold in folds):
        raise MemofastError(f"corpus {corpus.path}: no fold has a test part to say anything of; name one in folds.test")
    runs: dict[str, list] = {}
    settings: dict[str, dict[str, Counter]] = {}
    conditions = recipe.modalities.evaluate or conditions_of(corpus)
    for name, run, chosen in simple_baselines(
        corpus, folds, target, conditions, recipe.train.seeds, recipe.train.share, recipe.folds.by
    ):
        runs.setdefault(name, []).append(run)
        told = ", ".join(f"{of} {value:g}" for of, value in chosen.items())
        settings.setdefault(name, {}).setdefault(run.condition, Counter())[told] += 1
    trivial = trivial_answers(folds, target)
    return {
        "kind": target.kind,
        "baselines": {name: results_of(own, trivial=trivial) for name, own in runs.items()},
        "settings": {name: {c: dict(counts) for c, counts in of.items()} for name, of in settings.items()},
    }


def conditions_of(corpus: Corpus) -> list[str]:
    """Every condition of what a corpus has."""
    there = {name for name in corpus.modalities if name != "text" or has_words(corpus)}
    return [condition for condition in CONDITIONS if set(modalities_of(condition)) <= there]


def sections_of(results: dict[str, Any]) -> list[Section]:
    metrics, rows, chosen = METRICS[results["kind"]], [], []
    by_condition: dict[str, list[tuple[str, ...]]] = {}
    for name, own in results["baselines"].items():
        for row in own["rows"]:
            scores = numbers(row)["pooled"] or {}
            cells = (f"{row['condition']}, {name}", f"{row['samples']:,}")
            by_condition.setdefault(row["condition"], []).append(
                (*cells, *(interval_text(scores.get(metric)) for metric in metrics))
            )
    for lines in by_condition.values():
        rows += lines
    majority = numbers(next(iter(results["baselines"].values()))["rows"][0])["majority"]
    predictor = "mean predictor" if results["kind"] == "regression" else "majority predictor"
    rows.append((predictor, "", *(f"{majority[metric]:.3f}" for metric in metrics)))
    headings = ("test: conditions, simple baselines", "samples", *(NAMES[metric] for metric in metrics))
    title = "folds pooled [95 % bootstrap interval over samples]; penalties chosen inside the training part"
    for name, of in results["settings"].items():
        for condition, counts in of.items():
            told = "; ".join(f"{setting} ({count})" for setting, count in sorted(counts.items()))
            chosen.append((f"{condition}, {name}", told))
    return [Section(title, headings, rows), Section("settings chosen (folds)", ("", "setting"), chosen)]


def print_baselines(results: dict[str, Any], console: Console) -> None:
    for section in sections_of(results):
        print_section(section, console)


def write_baselines(results: dict[str, Any], folder: Path, title: str) -> list[Path]:
    """Write `results.json` and `results.md`. Returns: both."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results)
    parts = [f"# {title}\n", *map(section_markdown, sections_of(results))]
    replace_file(folder / "results.md", "\n".join(parts).encode())
    return [folder / "results.md", folder / "results.json"]

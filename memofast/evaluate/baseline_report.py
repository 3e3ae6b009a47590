"""Simple baselines of a corpus, or beside a finished fine-tuning, with the settings that their folds chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from memofast.data import Corpus
from memofast.data.conditions import CONDITIONS, modalities_of
from memofast.data.demo import open_corpus
from memofast.data.feature_choice import reading
from memofast.data.folds import read_groups
from memofast.errors import MemofastError
from memofast.evaluate.baseline_difference import against_baselines, baseline_warnings
from memofast.evaluate.baseline_table import baseline_sections
from memofast.evaluate.results import Run, results_of
from memofast.evaluate.section import print_section, section_markdown
from memofast.evaluate.simple_baselines import simple_baselines
from memofast.evaluate.simple_inputs import without_baselines
from memofast.files import read_json, replace_file, write_json
from memofast.model.compatibility import has_words
from memofast.objectives.label_space import LabelSpace
from memofast.train.fine_tuning_plan import FineTuningPlan
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.fold_parts import (
    Fold,
    check_classes,
    kept_whole,
    make_folds,
    share_of_classes,
    trivial_answers,
)

KEYS = ("baselines", "baseline_settings", "against_baselines")  # of results
Settings = dict[str, dict[str, Counter]]  # how often each was chosen, by name and condition


def baseline_results(recipe: FineTuneRecipe) -> dict[str, Any]:
    """Results of every baseline, as JSON can hold them.

    Returns: `kind`; `baselines`: by name what `results_of` gives; `baseline_settings`: by name and condition how often
        each setting was chosen.
    Raises: `MemofastError` as a plan of fine-tuning does for its corpus, folds and target, where nothing is tested, and
        for a condition of modalities that the corpus lacks.
    """
    corpus = reading(open_corpus(recipe.corpus), recipe.modalities.features)
    target = LabelSpace.of_corpus(corpus, recipe.target.kind, recipe.target.map)
    folds = make_folds(recipe, corpus)
    for fold in folds:
        for seed in recipe.train.seeds:
            check_classes(fold, target, share_of_classes(fold.train, target, recipe.train.share, seed))
    if not any(fold.test for fold in folds):
        raise MemofastError(f"corpus {corpus.path}: no fold has a test part to say anything of; name one in folds.test")
    there = conditions_of(corpus)
    for condition in recipe.modalities.evaluate or ():
        if condition not in there:
            raise MemofastError(f"corpus {corpus.path} has no condition {condition}; it has {', '.join(there)}")
    return _of_runs(*_answers(recipe, corpus, folds, target, recipe.modalities.evaluate or there), folds, target)


def with_baselines(
    results: dict[str, Any], plan: FineTuningPlan, runs: Sequence[Run], folder: Path, console: Console
) -> dict[str, Any]:
    """The results of a fine-tuning with its baselines and the difference to the best of them, which is a warning where
    the model is not above; or with a line that says why there are none.

    folder: of the run; baselines that its `results.json` holds beside the same rows are taken from there.
    """
    if not plan.recipe.baselines or not any(run.split == "test" for run in runs):
        return results
    if lacking := without_baselines(plan.corpus, plan.rows):
        return results | {"warnings": [*results["warnings"], f"no simple baselines: {lacking}"]}
    found = kept_baselines(folder, results["rows"])
    if not found:
        console.print("simple baselines on the same folds; baselines=false leaves them out")
        by_name, settings = _answers(plan.recipe, plan.corpus, plan.folds, plan.target, plan.evaluate, plan.rows)
        if not by_name:  # too few samples, which was told
            return results
        by = kept_whole(plan.recipe.folds, plan.corpus)
        group_of = read_groups(plan.corpus, by) if by else None
        found = _of_runs(by_name, settings, plan.folds, plan.target)
        found["against_baselines"] = against_baselines(runs, by_name, plan.metric, by, group_of)
    return shown_beside(results, found)


def kept_baselines(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any] | None:
    """What `results.json` of a run says of baselines. None where it says nothing, or is of other rows than these."""
    try:
        kept = read_json(folder / "results.json")
        if not all(name in kept for name in KEYS) or (rows is not None and kept["rows"] != rows):
            return None
        return {name: kept[name] for name in KEYS}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def shown_beside(
    results: dict[str, Any], found: Mapping[str, Any], conditions: Sequence[str] | None = None
) -> dict[str, Any]:
    """Results with what was found of baselines. conditions: those shown; None: all."""
    if conditions is not None:
        found = _of_conditions(found, conditions)
    if not found["baselines"]:
        return results
    warnings = [*results["warnings"], *baseline_warnings(found["against_baselines"])]
    return results | {name: found[name] for name in KEYS} | {"warnings": warnings}


def _of_conditions(found: Mapping[str, Any], conditions: Sequence[str]) -> dict[str, Any]:
    def some(own: Mapping[str, Any]) -> dict[str, Any]:
        return {**own, "rows": [row for row in own["rows"] if row["condition"] in conditions]}

    return {
        "baselines": {name: own for name, every in found["baselines"].items() if (own := some(every))["rows"]},
        "baseline_settings": {
            name: {condition: counts for condition, counts in of.items() if condition in conditions}
            for name, of in found["baseline_settings"].items()
        },
        "against_baselines": some(found["against_baselines"]),
    }


def _answers(
    recipe: FineTuneRecipe,
    corpus: Corpus,
    folds: Sequence[Fold],
    target: LabelSpace,
    conditions: Sequence[str],
    rows: Mapping[str, str] | None = None,
) -> tuple[dict[str, list[Run]], Settings]:
    runs: dict[str, list[Run]] = {}
    settings: Settings = {}
    by, train = kept_whole(recipe.folds, corpus), recipe.train
    for name, run, chosen in simple_baselines(corpus, folds, target, conditions, train.seeds, train.share, by, rows):
        runs.setdefault(name, []).append(run)
        told = ", ".join(f"{of} {value:g}" for of, value in chosen.items())
        settings.setdefault(name, {}).setdefault(run.condition, Counter())[told] += 1
    return runs, settings


def _of_runs(
    runs: Mapping[str, Sequence[Run]], settings: Settings, folds: list[Fold], target: LabelSpace
) -> dict[str, Any]:
    trivial = trivial_answers(folds, target)
    return {
        "kind": target.kind,
        "baselines": {name: results_of(own, trivial=trivial) for name, own in runs.items()},
        "baseline_settings": {name: {c: dict(counts) for c, counts in of.items()} for name, of in settings.items()},
    }


def conditions_of(corpus: Corpus) -> list[str]:
    """Every condition of what a corpus has; text may be words, or rows of a stream."""
    there = {name for name in corpus.modalities if name != "text" or has_words(corpus)}
    there |= {modality for _, modality in corpus.streams.values() if modality == "text"}
    return [condition for condition in CONDITIONS if set(modalities_of(condition)) <= there]


def print_baselines(results: dict[str, Any], console: Console) -> None:
    for section in baseline_sections(results):
        print_section(section, console)


def write_baselines(results: dict[str, Any], folder: Path, title: str) -> list[Path]:
    """Write `results.json` and `results.md`. Returns: both."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results)
    parts = [f"# {title}\n", *map(section_markdown, baseline_sections(results))]
    replace_file(folder / "results.md", "\n".join(parts).encode())
    return [folder / "results.md", folder / "results.json"]

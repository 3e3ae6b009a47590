"""By what the settings, the update and the seeds of a fine-tuning were chosen, as every table of results says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memofast.evaluate.section import Section
from memofast.metrics.sample_statistics import NAMES
from memofast.train.fine_tuning_plan import CHOOSES, told_of_context
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.nested_search import Choice, read_choice
from memofast.train.search_grid import told, with_settings


def how_chosen(recipe: FineTuneRecipe, run: Path, folds: Sequence[str]) -> dict[str, Any]:
    """Of a run whose named folds are finished, as JSON can hold it.

    Returns: `protocol`, with `nested` where settings were searched; `settings`, `update`, `seeds`: each a line;
        `search`: of a search its `runs`, `minutes` and by fold `settings`, `score` inside and `tried`, each with its
        `settings` and `score`; `context`: a line, of texts that are read in their dialogues.
    """
    choices = [read_choice(run, fold) for fold in folds] if recipe.search else []
    elsewhere = f"chosen elsewhere on: {recipe.settings_chosen_on or 'not said'}"
    found = {
        "protocol": f"{recipe.protocol}, nested" if choices else recipe.protocol,
        "settings": f"{_inside(recipe, choices)}; all others {elsewhere}" if choices else elsewhere,
        "update": _update(recipe),
        "seeds": f"{', '.join(map(str, recipe.train.seeds))}; all are in the table",
    }
    if read := _read(recipe, choices):
        found["context"] = f"{read}; simple baselines read the utterance alone (TF-IDF)"
    return found | ({"search": _search(choices)} if choices else {})


def lines_of_choice(found: dict[str, Any]) -> list[str]:
    """What `how_chosen` found, in lines."""
    names = [name for name in ("settings", "update", "seeds", "context") if name in found]
    return [f"protocol: {found['protocol']}", *(f"{name}: {found[name]}" for name in names)]


def section_of_search(search: dict[str, Any]) -> Section:
    """What every fold chose, and how often each choice was made."""
    rows = [(fold, own["settings"], f"{own['score']:.3f}") for fold, own in search["folds"].items()]
    counts = Counter(own["settings"] for own in search["folds"].values())
    rows += [(f"{count} of {len(search['folds'])}", chosen, "") for chosen, count in counts.most_common()]
    tried = len(next(iter(search["folds"].values()))["tried"])
    title = (
        f"chosen among {tried} settings inside the training part of each fold: {search['runs']} runs, "
        f"{search['minutes']} minutes"
    )
    return Section(title, ("fold", "settings", f"{NAMES[search['metric']]} inside"), rows)


def _inside(recipe: FineTuneRecipe, choices: Sequence[Choice]) -> str:
    on = "its validation part" if recipe.inner_folds == "validation" else f"{recipe.inner_folds} inner folds"
    return (
        f"{', '.join(recipe.search)} inside the training part of each fold, on {on} with seed {recipe.train.seeds[0]}"
    )


def _read(recipe: FineTuneRecipe, choices: Sequence[Choice]) -> str:
    """What is read around an utterance, by fold where each chose another context; "" where nothing is."""
    contexts = {choice.fold: with_settings(recipe, choice.settings).context for choice in choices}
    told = {fold: told_of_context(context) for fold, context in contexts.items() if context}
    if not choices:
        return told_of_context(recipe.context) if recipe.context else ""
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"fold {fold} {line}" for fold, line in told.items())


def _update(recipe: FineTuneRecipe) -> str:
    if recipe.protocol == "last":
        return "the last, nothing chose it"
    metric = NAMES[recipe.train.metric or CHOOSES[recipe.target.kind]]
    on = "on validation data" if recipe.protocol == "clean" else "ON TEST DATA"
    return f"the best by {metric} {on}, looked at {recipe.train.validations} times an epoch"


def _search(choices: Sequence[Choice]) -> dict[str, Any]:
    folds = {
        choice.fold: {
            "settings": told(choice.settings),
            "score": choice.tried[choice.number].mean,
            "tried": [{"settings": told(tried.settings), "score": tried.mean} for tried in choice.tried],
        }
        for choice in choices
    }
    runs = sum(len(tried.scores) for choice in choices for tried in choice.tried)
    minutes = round(sum(choice.seconds for choice in choices) / 60, 1)
    return {"metric": choices[0].metric, "runs": runs, "minutes": minutes, "folds": folds}

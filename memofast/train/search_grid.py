"""The settings that a search tries: every combination of the values it gives, and the recipe with each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any, TypeVar

from memofast.errors import MemofastError
from memofast.metrics.sample_statistics import LOWER_IS_BETTER
from memofast.sections import checked
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.recipe_file import families_first, put

Name = TypeVar("Name")
_LARGEST = 1000  # combinations
_MAY_CHANGE = ("model.", "train.", "prompt.", "context.", "modalities.train", "modalities.features")
_OF_VARIANTS = (*_MAY_CHANGE, "modalities.", "losses.")  # whole sections too, so that one may be left out
_SECTIONS = ("context", "losses", "prompt", "teachers")
_MEASURES = ("train.seeds", "train.metric", "train.share", "model.family")  # what is compared, not how it is learnt


def settings_of(search: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, by dotted name of the recipe's options; the last option changes fastest.

    Raises: `MemofastError` for an option that decides what is measured, for one without values or with one twice, and
        for too many combinations.
    """
    count = 1
    for name, values in search.items():
        if not name.startswith(_MAY_CHANGE) or name in _MEASURES:
            raise MemofastError(
                f"search: {name} is not searched; it takes options of model, train, prompt and context, as train.lr, "
                "modalities.train and modalities.features"
            )
        if not values:
            raise MemofastError(f"search: {name} has no values; give some, as [1e-4, 1e-3]")
        if any(value in values[:number] for number, value in enumerate(values)):
            raise MemofastError(f"search: {name} has a value twice")
        count *= len(values)
    if count > _LARGEST:
        raise MemofastError(f"search: {count:,} combinations are more than {_LARGEST:,}; give fewer values")
    return [dict(zip(search, values, strict=True)) for values in product(*search.values())]


def variants_of(variants: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Settings of which each changes options of its own, by dotted name; the first changes none.

    Raises: `MemofastError` for an option that decides what is measured, and for a first that changes something.
    """
    found = list(variants)
    if found[0] or len(found) == 1 or not all(found[1:]):
        raise MemofastError(
            "variants: the first is the recipe as it is, write {}, and each further one changes something, as "
            "{train.error: absolute}"
        )
    for name in (name for one in found for name in one):
        if not (name in _SECTIONS or name.startswith(_OF_VARIANTS)) or name in _MEASURES:
            raise MemofastError(f"variants: {name} decides what is measured; set it for all")
    return found


def with_settings(recipe: FineTuneRecipe, settings: Mapping[str, Any]) -> FineTuneRecipe:
    """The recipe with some options changed. Raises: `MemofastError` for an option that there is not, or a wrong
    value."""
    values, source = recipe.plain(), f"search ({told(settings)})"
    for name in families_first(settings):
        put(values, name, settings[name], source, FineTuneRecipe)
    return checked(values, source, FineTuneRecipe)


def winner_of(scores: Mapping[Name, Sequence[float | None]], metric: str) -> Name | None:
    """The settings with the best mean of their scores, the first of equal ones; None where there are none.

    Settings whose metric was not a number, None, in one of their runs do not win.
    """
    means = {name: fmean(every) for name, every in scores.items() if every and None not in every}
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return max(means, key=lambda name: sign * means[name], default=None)


def told(settings: Mapping[str, Any]) -> str:
    """Settings for people: `train.lr=0.001, model.hidden_size=64`; `as set` where they change nothing."""
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "as set"

"""The file of a sweep: a recipe, what is fixed of it, and what is searched; every setting is opened before any is
run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.sections import Section, checked, shown
from memofast.train.fine_tuning_plan import FineTuningPlan, check_comparable, make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import FineTuneRecipe, said_of_changes
from memofast.train.recipe_file import apply_override, families_first, put, read_mapping, read_values, shipped
from memofast.train.recipe_text import to_yaml
from memofast.train.search_grid import settings_of, told, variants_of, with_settings

SWEEP = "sweep.yaml"
_REFUSED = {"paper": "chooses on test data", "last": "has no validation data"}


class SweepFile(Section):
    """recipe: of a fine-tuning, shipped or a file, or several to be joined; None: the defaults alone. set: its options,
    nested or dotted. search: by option the values that are tried, every combination of them; or variants: the options
    of each setting beside `set`, of the first none, with which the others are compared."""

    recipe: str | list[str] | None = "finetune"
    set_: dict[str, Any] = Field({}, alias="set")
    search: dict[str, Any] = Field({})
    variants: list[dict[str, Any]] = Field([])


@dataclass(frozen=True)
class Setting:
    """One combination, or variant. name: of its folder; options: those that it changes, by dotted name; recipe: with
    its paths spelt out; plan: of it."""

    name: str
    options: dict[str, Any]
    recipe: FineTuneRecipe
    plan: FineTuningPlan

    def __str__(self) -> str:
        return f"{self.name} ({told(self.options)})"


@dataclass(frozen=True, eq=False)
class Sweep:
    """plan: of the first setting, whose folds, target and metric are those of all, and in a search the conditions that
    choose. search: None where the settings are variants."""

    settings: list[Setting]
    search: dict[str, list[Any]] | None
    plan: FineTuningPlan

    def runs(self) -> list[tuple[str, int]]:
        """The fold and seed of every run of a setting."""
        return [(fold.name, seed) for fold, seed in self.plan.runs()]

    def describe(self) -> str:
        """What will be run, in a few lines."""
        count, runs = len(self.settings), len(self.runs())
        lines = [f"setting {setting}" for setting in self.settings]
        whole = f"{count} settings x {runs} folds and seeds: {count * runs:,} runs"
        return "\n".join([*lines, self.plan.describe([setting.plan for setting in self.settings]), whole])


def read_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep's file, or a shipped one by its name, and open every setting.

    overrides: `dotted.key=value` of fixed options. Raises: `MemofastError` for a file, option or value that is wrong,
        for an option both fixed and searched, for a protocol without validation data, and as `make_fine_tuning_plan`
        for each setting.
    """
    source = str(path)
    given = checked(read_mapping(source, "sweep"), source, SweepFile)
    search = dict(_searched(given.search, source))
    if given.variants and search:
        raise MemofastError(f"{source}: variants and search both say what is tried; leave one out")
    if not search and not given.variants:
        raise MemofastError(f"{source}: search names no option; add one, as search: {{train.lr: [1e-4, 1e-3]}}")
    settings = variants_of(dict(_flat(one)) for one in given.variants) if given.variants else settings_of(search)
    search = search or {name: [] for one in settings for name in one}
    names = [given.recipe] if isinstance(given.recipe, str) else given.recipe
    values, _ = read_values(names, (), shipped(fine_tuning=True), FineTuneRecipe) if names else ({}, "")
    changes = list(_changes(given.set_))
    if not given.variants:
        _check_apart(changes, search, f"{source}: set")
    for name in families_first(given.set_):
        put(values, name, given.set_[name], f"{source}: set.{name}", FineTuneRecipe)
    for override in families_first(overrides):
        if not given.variants:
            _check_apart([override], search, shown(override))
        apply_override(values, override, FineTuneRecipe)
    for name in families_first(settings[0]):
        put(values, name, settings[0][name], f"{source}: search.{name}", FineTuneRecipe)
    recipe = said_of_changes(checked(values, source, FineTuneRecipe), [*changes, *overrides])
    recipe = _said_of_search(recipe, search, len(settings))
    return _opened(recipe, None if given.variants else search, settings, source)


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Keep a sweep's resolved file, which `read_sweep` reads again as the same settings."""
    fixed = sweep.settings[0].recipe.plain()
    if sweep.search is None:
        variants = [{n: _at(one.recipe.plain(), n) for n in one.options} for one in sweep.settings]
        replace_file(folder / SWEEP, to_yaml({"recipe": None, "set": fixed, "variants": variants}).encode())
        return
    search = {}
    for name, values in sweep.search.items():
        with_it = [next(one for one in sweep.settings if one.options[name] == value) for value in values]
        search[name] = [_at(setting.recipe.plain(), name) for setting in with_it]  # with its paths spelt out
        *above, last = name.split(".")
        _at(fixed, ".".join(above)).pop(last)
    replace_file(folder / SWEEP, to_yaml({"recipe": None, "set": fixed, "search": search}).encode())


def _searched(search: Mapping[str, Any], source: str, above: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Lists of values by dotted name."""
    for name, values in search.items():
        path = f"{above}{name}"
        if isinstance(values, Mapping):
            yield from _searched(values, source, f"{path}.")
        elif isinstance(values, list):
            yield path, values
        else:
            raise MemofastError(f"{source}: search.{path}: must be a list of values, got {shown(values)}")


def _changes(fixed: Mapping[str, Any]) -> Iterator[str]:
    """As overrides say them: `train.seeds=[1, 2]`."""
    for name, value in _flat(fixed):
        yield f"{name}={value}"


def _flat(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted name."""
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _check_apart(changes: Sequence[str], search: Mapping[str, Any], where: str) -> None:
    for name in (change.partition("=")[0] for change in changes):
        for other in search:
            if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                of = "it" if name == other else other
                raise MemofastError(f"{where}: {name} is fixed, but search tries values of {of}; leave one out")


def _said_of_search(recipe: FineTuneRecipe, search: Mapping[str, Any], settings: int) -> FineTuneRecipe:
    """The recipe, whose `settings_chosen_on` also tells of the sweep, once."""
    own = f"; {', '.join(search)} by a sweep of {settings} settings, on validation data of this corpus"
    if recipe.settings_chosen_on.endswith(own):  # it was read from a sweep's folder
        return recipe
    return recipe.model_copy(update={"settings_chosen_on": recipe.settings_chosen_on + own})


def _opened(
    recipe: FineTuneRecipe, search: dict[str, list[Any]] | None, settings: Sequence[dict[str, Any]], source: str
) -> Sweep:
    if recipe.protocol in _REFUSED:
        raise MemofastError(
            f"{source}: protocol {recipe.protocol} {_REFUSED[recipe.protocol]}, so that nothing may name a winner; "
            "write protocol=clean, or search inside every training part with memofast finetune search=..."
        )
    if recipe.search:
        raise MemofastError(f"{source}: set.search chooses inside every training part, a sweep outside; leave one out")
    found, first = [], None
    for number, options in enumerate(settings, 1):
        chosen = with_settings(recipe, options)
        try:
            plan = make_fine_tuning_plan(chosen)
        except MemofastError as error:
            raise MemofastError(f"{source}: setting {told(options)}: {error}") from None
        first = first or plan
        _check_comparable(first, plan, options, source, of_search=search is not None)
        found.append(Setting(f"{number:0{max(2, len(str(len(settings))))}}", options, plan.resolved(), plan))
    return Sweep(found, search, replace(first, recipe=found[0].recipe))


def _check_comparable(
    first: FineTuningPlan, plan: FineTuningPlan, options: Mapping[str, Any], source: str, of_search: bool
) -> None:
    """Settings of a search are chosen by the same conditions; a variant by as many as the first."""
    if of_search or len(plan.select) != len(first.select):
        check_comparable(first, plan, f"{source}: setting {told(options)}")
    if lacking := [condition for condition in plan.select if condition not in plan.evaluate]:
        raise MemofastError(
            f"{source}: modalities.evaluate lacks {lacking[0]}, which chooses and whose answers are compared; add it"
        )


def _at(values: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values

"""Recipe files: the plain values of several, joined from left to right, with dotted overrides."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from memofast.errors import MemofastError
from memofast.sections import has_own_names, shown
from memofast.train.recipe_text import read_toml, read_yaml

_LARGEST = 2**18  # bytes
_FRAGMENTS, _SWEEPS = "fragments", "sweeps"  # folders beside the shipped recipes
_FIRST_FAMILY = "memobert"  # of a model that names none
_OF_FINE_TUNING = "\nsettings_chosen_on:"  # which every recipe of fine-tuning says


def shipped(fine_tuning: bool = False) -> list[str]:
    """Names of the recipes that come with memofast, for pre-training or for fine-tuning."""
    names = [entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")]
    return sorted(name for name in names if (_OF_FINE_TUNING in _shipped_text(name)) == fine_tuning)


def sweeps() -> list[str]:
    """Names of the sweeps that come with memofast."""
    folder = _folder() / _SWEEPS
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def fragments() -> list[str]:
    """Names of the fragments that come with memofast: what they say changes a base recipe of pre-training, as in
    `memobert-base + matching`."""
    folder = _folder() / _FRAGMENTS
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def described(name: str) -> str:
    """What a shipped recipe or fragment is for, in a line: its first comment."""
    return _shipped_text(name).split("\n", 1)[0].removeprefix("# ")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The recipes on a command line, `NAME + NAME`, none where it begins with an override, and the overrides.

    Raises: `MemofastError` for a `+` with no recipe beside it.
    """
    left = list(arguments)
    if not left or "=" in left[0]:
        return [], left
    names = [left.pop(0)]
    while left and left[0] == "+":
        if names[0] == "+" or len(left) < 2:
            break
        names.append(left[1])
        left = left[2:]
    if "+" in (names[0], *left[:1]):
        raise MemofastError("+ joins two recipes; write it between them, as memobert-base + more.yaml")
    return names, left


def read_values(
    names: str | Sequence[str],
    overrides: Sequence[str],
    known: Sequence[str],
    model: type[BaseModel],
    joined: Sequence[str] = (),
) -> tuple[dict[str, Any], str]:
    """The plain values of recipes with overrides applied, and what to call them in messages.

    Args: names: recipes of `known`, the shipped ones, or paths of YAML or, by their suffix, TOML files. Of several the
        later ones go over the earlier: mappings are joined, all else is replaced. joined: shipped fragments, which may
        follow a recipe. overrides: `dotted.key=value`, the value in YAML; `corpora.0.path=FOLDER` reaches into a list,
        one past its end appends. A section, as `train={lr: 1e-4}`, changes what it names; a model of another family
        (`model.family=towers` too), and a mapping with names of its own, as objectives, is replaced. model: of the
        whole recipe.
    Raises: `MemofastError` for a missing file, or one that is no mapping, a fragment that follows no recipe, and as
        `read_yaml`.
    """
    names = [names] if isinstance(names, str) else names
    if names[0] in joined:
        raise MemofastError(
            f"recipe {names[0]} is a fragment, which changes another recipe; join it to one, as memobert-base + "
            f"{names[0]}"
        )
    values, sources = {}, []
    for name in names:
        found, source = _document(name, known, joined)
        values = _joined(values, found)
        sources.append(source)
    for override in families_first(overrides):
        apply_override(values, override, model)
    return values, " + ".join(sources)


def read_mapping(path: str, what: str) -> dict[str, Any]:
    """The plain values of a shipped sweep, or of a YAML or TOML file of another kind, a `what`. Raises: as
    `read_values`."""
    text, source = _text(path, sweeps() if what == "sweep" else (), (), what)
    values = read_toml(text, source) if path.endswith(".toml") else read_yaml(text, source)
    if not isinstance(values, dict):
        raise MemofastError(f"{source}: a {what} is a mapping of entries; memofast {what} --help shows one")
    return values


def families_first(options: Iterable[str]) -> list[str]:
    """Overrides or their keys, those before the others that name a model's family: another one replaces its section, so
    that what is said beside it, in any order, is of the new one."""
    return sorted(options, key=lambda option: option.partition("=")[0].rpartition(".")[2] != "family")


def apply_override(values: dict[str, Any], override: str, model: type[BaseModel]) -> None:
    """Change plain values by `dotted.key=value`. Raises: as `read_values`."""
    path, equals, text = override.partition("=")
    said = shown(override)
    if not equals or not path:
        raise MemofastError(
            f"{said} is no override; write key=value, such as train.lr=3e-5, or + before another recipe"
        )
    put(values, path, read_yaml(text, said, path, lines=False), said, model)


def put(values: dict[str, Any], path: str, value: Any, said: str, model: type[BaseModel]) -> None:
    """Change plain values as an override does; another `family` leaves nothing of its section. path: dotted; said:
    what to call it in messages.

    Raises: `MemofastError` where the path leads through a value, or past the end of a list.
    """
    names = path.split(".")
    place: Any = values
    for name, following in pairwise(names):
        key = _key(place, name, said)
        if place[key] is None:
            place[key] = [] if _is_index(following) else {}
        place = place[key]
        if not isinstance(place, (dict, list)):
            raise MemofastError(f"{said}: {name} is a value and has no entries")
    if names[-1] == "family" and isinstance(place, dict) and len(names) > 1:
        kept = _joined(place, {"family": value})
        place.clear()
        place.update(kept)
        return
    key = _key(place, names[-1], said)
    place[key] = value if has_own_names(model, names) else _joined(place[key], value)


def _folder():
    return resources.files("memofast.recipes")


def _shipped_text(name: str) -> str:
    folder = _folder()
    places = (folder, folder / _FRAGMENTS, folder / _SWEEPS)
    found = next(place for part in places if (place := part / f"{name}.yaml").is_file())
    return found.read_text(encoding="utf-8")


def _document(name: str, known: Sequence[str], joined: Sequence[str]) -> tuple[dict[str, Any], str]:
    text, source = _text(name, known, joined)
    values = read_toml(text, source) if name.endswith(".toml") else read_yaml(text, source)
    if not isinstance(values, dict):
        raise MemofastError(f"{source}: a recipe is a YAML mapping of sections; see {known[0]}")
    return values, source


def _text(name: str, known: Sequence[str], joined: Sequence[str], what: str = "recipe") -> tuple[str, str]:
    if name in (*known, *joined):
        return _shipped_text(name), f"{what} {name}"
    try:
        if Path(name).exists() and not Path(name).is_file():
            raise OSError(0, "no file")
        with open(name, "rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise OSError(0, f"longer than any {what} ({_LARGEST:,} bytes)")
        return data.decode("utf-8-sig"), name
    except (OSError, ValueError) as error:
        near = difflib.get_close_matches(name[:200], [*known, *joined], n=1)
        shipped_ones = f" or one of {', '.join(known)}" if known else ""
        hint = f"did you mean {near[0]}?" if near else f"give a YAML or TOML file{shipped_ones}"
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise MemofastError(f"{what} {name[:200]}: {reason}; {hint}") from None


def _joined(below: Any, above: Any) -> Any:
    """Entries of `above` over those of `below` where both are mappings, else `above`; one of another model family has
    entries of its own alone."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    if above.get("family") not in (None, below.get("family", _FIRST_FAMILY)):
        return above
    return below | {name: _joined(below.get(name), value) for name, value in above.items()}


def _is_index(name: str) -> bool:
    return re.fullmatch("[0-9]{1,6}", name) is not None


def _key(place: dict[str, Any] | list[Any], name: str, override: str) -> str | int:
    """What an entry of a mapping or list is reached by; where it is missing it becomes None (in a list: only one past
    the end)."""
    if isinstance(place, dict):
        place.setdefault(name, None)
        return name
    if not _is_index(name) or int(name) > len(place):
        raise MemofastError(f"{override}: {name} is no place in a list of {len(place)}; count from 0")
    if int(name) == len(place):
        place.append(None)
    return int(name)

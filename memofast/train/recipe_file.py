"""Recipe files: a pydantic model read from YAML with dotted overrides; a wrong key is answered with the nearest right
one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from memofast.errors import MemofastError


def shipped(fine_tuning: bool = False) -> list[str]:
    """Names of the recipes that come with memofast, for pre-training or for fine-tuning."""
    names = [entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")]
    return sorted(name for name in names if name.startswith("finetune") == fine_tuning)


def split_arguments(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The recipe's name on a command line, None where it begins with an override, and the overrides."""
    if not arguments or "=" in arguments[0]:
        return None, arguments
    return arguments[0], arguments[1:]


def read_values(name: str, overrides: Sequence[str], known: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The plain values of a recipe with overrides applied, and what to call it in messages.

    Args: name: a recipe of `known`, the shipped ones, or the path of a YAML file; overrides: `dotted.key=value`, the
        value in YAML; `corpora.0.path=FOLDER` reaches into a list, one past its end appends.
    Raises: `MemofastError` for a missing file, or one that is no YAML mapping.
    """
    text, source = _text(name, known)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise MemofastError(
            f"{source}{line}: not valid YAML ({getattr(error, 'problem', error)}); correct it"
        ) from None
    if not isinstance(values, dict):
        raise MemofastError(f"{source}: a recipe is a YAML mapping of sections; see {known[0]}")
    for override in overrides:
        _apply(values, override)
    return values, source


def _folder():
    return resources.files("memofast.recipes")


def _text(name: str, known: Sequence[str]) -> tuple[str, str]:
    if name in known:
        return (_folder() / f"{name}.yaml").read_text(), f"recipe {name}"
    try:
        return Path(name).read_text(), name
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give a YAML file or one of {', '.join(known)}"
        reason = getattr(error, "strerror", None) or "not a text file"
        raise MemofastError(f"recipe {name}: {reason}; {hint}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise MemofastError(f"{override!r} is no override; write key=value, such as train.lr=3e-5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise MemofastError(f"{override!r}: the value is not valid YAML; quote it") from None
    *parents, last = path.split(".")
    place: Any = values
    for depth, name in enumerate(parents):
        following = [] if [*parents, last][depth + 1].isdigit() else {}
        place = _enter(place, name, override, following)
    if isinstance(place, list):
        _enter(place, last, override, None)
        place[int(last)] = value
    else:
        place[last] = value


def _enter(place: Any, name: str, override: str, empty: Any) -> Any:
    """The entry `name` of a mapping or list, made where it is missing (in a list: only one past the end)."""
    if isinstance(place, list):
        if not name.isdigit() or int(name) > len(place):
            raise MemofastError(f"{override!r}: {name} is no place in a list of {len(place)}; count from 0")
        if int(name) == len(place):
            place.append(empty)
        return place[int(name)]
    if place.get(name) is None:
        place[name] = empty
    if not isinstance(place[name], (dict, list)):
        raise MemofastError(f"{override!r}: {name} is a value and has no entries")
    return place[name]

"""Sections of a recipe: pydantic models whose mistakes are told in one line, a wrong key with the nearest right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError

from memofast.errors import MemofastError, nearest


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)


Model = TypeVar("Model", bound=BaseModel)


def checked(values: dict[str, Any], source: str, model: type[Model]) -> Model:
    """Values as a recipe. Raises: `MemofastError` for an unknown key (naming the nearest) or a value of the wrong
    kind."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise MemofastError(_first_problem(error, source, model)) from None


def _first_problem(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    place, section = _followed(model, problem["loc"])
    path = ".".join(place)
    if problem["type"] == "union_tag_invalid":
        known = [part.strip("' ") for part in problem["ctx"]["expected_tags"].split(",")]
        tag = problem["ctx"]["tag"]
        return f"{source}: {path} has no kind {tag!r}{nearest(tag, known)}"
    if problem["type"] != "extra_forbidden":
        reason = problem["msg"].removeprefix("Value error, ")
        reason = f"{reason[0].lower()}{reason[1:]}"
        return f"{source}: {path}: {reason}, got {problem['input']!r}" if path else f"{source}: {reason}"
    known = [field.alias or key for key, field in section.model_fields.items()]
    prefix = "".join(f"{part}." for part in place[:-1])
    return f"{source}: unknown key {path}{nearest(place[-1], known, prefix)}"


def _followed(section: Any, loc: Sequence[str | int]) -> tuple[list[str], Any]:
    """The keys of a problem's place, without the tags of unions, and the last section that they lead through."""
    path, found = [], section
    for name in loc:
        tagged = {tag.tag: of for of, tag in _members(found)}
        if name in tagged:
            found = tagged[name]
            continue
        path.append(str(name))
        if isinstance(found, type) and issubclass(found, BaseModel):
            section = found
            found = {(f.alias or key): f.annotation for key, f in found.model_fields.items()}.get(name)
        else:
            found = next((of for of in get_args(found) if isinstance(of, type) and issubclass(of, BaseModel)), None)
    return path, section


def _members(annotation: Any) -> list[tuple[Any, Tag]]:
    """Members of a tagged union, with their tags."""
    pairs = [(get_args(of)[0], tag) for of in get_args(annotation) for tag in get_args(of)[1:]]
    return [(of, tag) for of, tag in pairs if isinstance(tag, Tag)]

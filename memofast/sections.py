"""Sections of a recipe: pydantic models whose mistakes are told in one line, a wrong key with the nearest right one."""

from __future__ import annotations

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from memofast.errors import MemofastError, nearest


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)


Model = TypeVar("Model", bound=BaseModel)


def checked(values: dict[str, Any], source: str, model: type[Model]) -> Model:
    """Values as a recipe. Raises: `MemofastError` for an unknown key (naming the nearest) or a value of the wrong kind."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise MemofastError(_first_problem(error, source, model)) from None


def _first_problem(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        reason = problem["msg"].removeprefix("Value error, ")
        reason = f"{reason[0].lower()}{reason[1:]}"
        return f"{source}: {path}: {reason}, got {problem['input']!r}" if path else f"{source}: {reason}"
    *parents, wrong = problem["loc"]
    known = _keys(model, parents)
    prefix = "".join(f"{part}." for part in parents)
    return f"{source}: unknown key {path}{nearest(wrong, known, prefix)}"


def _keys(section: type[BaseModel], path: list[str | int]) -> list[str]:
    """Keys of the section that a path of keys leads to."""
    for name in path:
        if isinstance(name, str):
            found = {(f.alias or key): f.annotation for key, f in section.model_fields.items()}[name]
            section = getattr(found, "__args__", (found,))[0]
    return [f.alias or key for key, f in section.model_fields.items()]

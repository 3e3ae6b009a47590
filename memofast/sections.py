"""Sections of a recipe, and other values that are read from files: pydantic models whose mistakes are told in one line,
a wrong key with the nearest right one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Tag, ValidationError, ValidationInfo, field_validator

from memofast.errors import MemofastError, nearest

_SHOWN = 80  # characters of a wrong value
_ENTRIES = 8  # of a section, in a message
_NAME_BYTES, _PATH_BYTES = 255, 4000  # of Linux file systems, with room for the names of files in a folder
_MAPPING = "must be a mapping of entries"
_REASONS = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _MAPPING),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
}
_WRITE = {  # in place of a single value
    "list_type": "; write a list, as [{}]",
    "tuple_type": "; write a list, as [{}]",
    "string_type": '; put it in quotes, as "{}"',
}
_UNIONS = (Union, UnionType)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        allowed = set(_members(cls.model_fields[info.field_name].annotation))
        if isinstance(value, bool) and all(map(_is_section, allowed - {NoneType})):
            return value  # pydantic says that it must be a mapping
        if _holds_bool(value) and not allowed & {bool, Any}:
            raise ValueError("is neither true nor false")  # which pydantic would take for 1 and 0
        return value

    def plain(self) -> dict[str, Any]:
        """As a file says it: names and plain values."""
        return self.model_dump(mode="json", by_alias=True)


def _holds_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, (list, tuple)) and any(map(_holds_bool, value)))


def _path(text: str) -> str:
    path = os.path.expanduser(text)
    longest = max((len(os.fsencode(name)) for name in Path(path).parts), default=0)
    if "\0" in path or longest > _NAME_BYTES or len(os.fsencode(path)) > _PATH_BYTES:
        raise ValueError(f"is no path: names have up to {_NAME_BYTES} bytes, a path {_PATH_BYTES}")
    return path


FilePath = Annotated[str, AfterValidator(_path)]  # with ~ expanded

Model = TypeVar("Model", bound=BaseModel)


def checked(values: Any, source: str, model: type[Model]) -> Model:
    """Values as a section. Raises: `MemofastError` for an unknown key (naming the nearest) or a value of the wrong
    kind."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise MemofastError(_first_problem(error, source, model)) from None


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value below nested mappings and lists, with its dotted path; an empty one stands for itself."""
    if not isinstance(value, (Mapping, list)) or not value:
        yield path, value
        return
    for name, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from leaves(entry, f"{path}.{name}" if path else str(name))


def has_own_names(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether a place is a mapping whose keys a recipe names itself, as `objectives`, and no section."""
    found: Any = model
    for name in path:
        sections = filter(_is_section, _members(found))
        fields = {key: of for section in sections for key, of in _fields(section).items()}
        if name not in fields:
            return False
        found = fields[name]
    return any(get_origin(member) is dict for member in _members(found))


def shown(value: Any) -> str:
    """A value for a message, on one line and cut where it is long."""
    return _short(repr(value))


def _first_problem(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    place, section = _followed(model, problem["loc"])
    path = ".".join(place)
    if problem["type"] == "union_tag_invalid":
        known = [part.strip("' ") for part in problem["ctx"]["expected_tags"].split(",")]
        tag = problem["ctx"]["tag"]
        return f"{source}: {path} has no kind {shown(tag)}{nearest(tag, known)}"
    if problem["type"] != "extra_forbidden":
        reason = _REASONS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        reason, given = f"{reason[0].lower()}{reason[1:]}", problem["input"]
        remedy = _WRITE.get(problem["type"], "") if isinstance(given, (str, int, float)) else ""
        given = f", got {shown(given)}{remedy.format(_short(str(given)))}"
        if reason == _MAPPING:
            given += _entries(section, place)
        if problem["type"] == "missing":
            reason, given = "is missing", ""
        return f"{source}: {path}: {reason}{given}" if path else f"{source}: {reason}"
    known = [field.alias or key for key, field in section.model_fields.items()]
    prefix = "".join(f"{part}." for part in place[:-1])
    return f"{source}: unknown key {_short(path)}{nearest(place[-1][:_SHOWN], known, prefix)}"


def _entries(section: type[BaseModel], place: Sequence[str]) -> str:
    """What the section at a place may hold, where a value stands in its place."""
    sections = [*filter(_is_section, _members(_fields(section).get(place[-1] if place else "")))]
    known = [*_fields(sections[0])] if len(sections) == 1 else []
    more = ", ..." if len(known) > _ENTRIES else ""
    return f"; its entries are {', '.join(known[:_ENTRIES])}{more}" if known else ""


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _followed(section: Any, loc: Sequence[str | int]) -> tuple[list[str], Any]:
    """The keys of a problem's place, without the tags of unions, and the last section that they lead through."""
    path, found = [], section
    for name in loc:
        tagged, members = {tag.tag: of for of, tag in _tagged(found)}, [*_members(found)]
        within = [member for member in members if get_origin(member) in (list, tuple, dict)]
        if name in tagged:
            found = tagged[name]
        elif sections := [*filter(_is_section, members)]:
            path.append(str(name))
            section = sections[0]
            found = _fields(section).get(name)
        elif isinstance(name, int) or len(members) == 1 or any(get_origin(member) is dict for member in members):
            path.append(str(name))
            found = get_args(within[0])[-1] if within else None
        # else it is what pydantic calls a member of a union
    return path, section


def _is_section(of: Any) -> bool:
    return isinstance(of, type) and issubclass(of, BaseModel)


def _fields(section: type[BaseModel]) -> dict[str, Any]:
    return {(field.alias or key): field.annotation for key, field in section.model_fields.items()}


def _members(annotation: Any) -> Iterator[Any]:
    """What a value may be: members of unions, without their notes."""
    if get_origin(annotation) in (Annotated, *_UNIONS):
        for of in get_args(annotation)[: 1 if get_origin(annotation) is Annotated else None]:
            yield from _members(of)
    else:
        yield annotation


def _tagged(annotation: Any) -> list[tuple[Any, Tag]]:
    """Members of a tagged union, with their tags, wherever in a field's annotation it stands."""
    found, *notes = get_args(annotation) or (None,)
    if get_origin(annotation) is Annotated:
        tags = [note for note in notes if isinstance(note, Tag)]
        return [(found, tag) for tag in tags] or _tagged(found)
    return [pair for of in get_args(annotation) for pair in _tagged(of)] if get_origin(annotation) in _UNIONS else []

"""JSON that the package wrote itself, checked before it is believed: what is damaged is one line, not a traceback."""

import unicodedata
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from memofast.errors import MemofastError
from memofast.files import read_json

_MOST = 1 << 48
_UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of a letter, line breaks


class Schema(BaseModel):
    """Values have the types of JSON themselves: no number is read out of a text. Entries without a field are let be."""

    model_config = ConfigDict(strict=True, extra="allow")


def _one_line(text: str) -> str:
    if any(unicodedata.category(character) in _UNPRINTED for character in text):
        raise ValueError("must be one line of letters")
    return text


def _file_name(text: str) -> str:
    if not 0 < len(text) <= 4096 or "\0" in text:
        raise ValueError("must be a name of 1 to 4096 characters")
    return text


Name = Annotated[str, AfterValidator(_one_line)]
FileName = Annotated[str, AfterValidator(_file_name)]  # may hold halves of letters: a path that is no UTF-8
Count = Annotated[int, Field(ge=0, le=_MOST)]


def read_described(path: Path, schema: type[Schema], what: str, remedy: str) -> dict[str, Any]:
    """The object in a JSON file, as it stands there. Raises: `MemofastError` where it is not `what`."""
    try:
        values = read_json(path)
    except OSError as error:
        raise MemofastError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    except ValueError as error:
        raise MemofastError(f"{path} is not {what} ({error}): {remedy}") from None
    if fault := fault_of(values, schema):
        raise MemofastError(f"{path} is not {what} ({fault}): {remedy}")
    return values


def fault_of(values: Any, schema: type[Schema]) -> str | None:
    """What is wrong with values, in words; None where nothing is."""
    try:
        schema.model_validate(values)
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair"
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        reason = problem["msg"].removeprefix("Value error, ")
        place = ".".join(map(str, problem["loc"]))
        reason = _short(f"{reason[0].lower()}{reason[1:]}", 200)
        return f"{_short(place)}: {reason}, got {_short(repr(problem['input']))}" if place else reason
    return None


def _short(text: str, most: int = 80) -> str:
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."

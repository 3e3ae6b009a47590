"""What `corpus.json` holds, and the files that it names."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.schemas import Count, FileName, Name, Schema, fault_of, read_described

CORPUS = "corpus.json"
FORMAT = 1
_LONGEST_LINE = 4096
_Modality = Literal[MODALITIES]


class _Stream(Schema):
    store: FileName
    modality: _Modality


class _Split(Schema):
    file: FileName
    samples: Count
    part_of: Name | None = None


class _Scheme(Schema):
    count: Count
    by: Name | None = None


class _Rule(Schema):
    rule: Name
    meaning: str = ""
    clips: Count = 0
    dropped: Count = 0


class _Corpus(Schema):
    format: int
    name: Name
    stores: dict[_Modality, FileName]
    streams: dict[Name, _Stream] = Field(default_factory=dict)
    splits: dict[Name, _Split]
    groups: dict[Name, FileName] = Field(default_factory=dict)
    folds: dict[Name, _Scheme] = Field(default_factory=dict)
    rules: list[_Rule] = Field(default_factory=list)
    licence: str = ""

    @model_validator(mode="after")
    def _streams_have_own_names(self) -> "_Corpus":
        if shared := [name for name in self.streams if name in MODALITIES]:
            raise ValueError(f"stream {shared[0]} has the name of a modality")
        return self


def read_description(path: Path) -> dict[str, Any]:
    """The `corpus.json` of the corpus at `path`. Raises: `MemofastError` where there is none, or a damaged or newer
    one."""
    if not os.path.isfile(path / CORPUS):
        raise MemofastError(f"no corpus at {path} ({CORPUS} is missing): check the path or run memofast prepare")
    description = read_described(path / CORPUS, _Corpus, "a corpus description", "restore it or prepare again")
    if description["format"] != FORMAT:
        raise MemofastError(f"corpus {path} has format {description['format']}, this memofast reads {FORMAT}")
    return description


def check_description(path: Path, description: dict[str, Any]) -> None:
    """Raises: `MemofastError` where what is to be written could not be read again."""
    if fault := fault_of(description, _Corpus):
        raise MemofastError(f"corpus {path} cannot be described ({fault}): name it otherwise")


def read_lines(path: Path) -> list[str]:
    """The lines of a file that names samples, which end at line feeds alone. Raises: `MemofastError` for a file that
    is missing or no UTF-8, and for an empty or endless line."""
    try:
        if path.exists() and not path.is_file():
            raise MemofastError(f"{path} is no file: restore it")
        lines = path.read_bytes().decode().split("\n")
    except OSError as error:
        raise MemofastError(f"{path} cannot be read ({error.strerror}): restore it") from None
    except UnicodeDecodeError as error:
        raise MemofastError(f"{path} is no UTF-8 ({error}): restore it") from None
    if lines[-1] == "":
        lines.pop()
    if "" in lines:
        raise MemofastError(f"line {lines.index('') + 1} of {path} is empty: take it out")
    if long := next((number for number, line in enumerate(lines, 1) if len(line) > _LONGEST_LINE), None):
        raise MemofastError(f"line {long} of {path} is longer than {_LONGEST_LINE} letters: no name is, restore it")
    return lines

"""The options that a corpus was prepared with, in `prepare.json`: all of its rows are made by the same."""

import json
from pathlib import Path
from typing import Any

from memofast.errors import MemofastError
from memofast.files import write_json

SETTINGS = "prepare.json"


def read_settings(corpus: Path) -> dict[str, Any]:
    """Options that a corpus was prepared with; none where they are not known."""
    try:
        return dict(json.loads((corpus / SETTINGS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def keep_settings(corpus: Path, settings: dict[str, Any]) -> None:
    """Write the options of a corpus that is begun. Raises: `MemofastError` where it was begun with others: a store
    would hold two kinds of rows."""
    path = corpus / SETTINGS
    if path.is_file():
        _refuse_others(path, settings)
        return
    try:
        corpus.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemofastError(f"{corpus} cannot be made ({error.strerror}); choose another --out") from error
    write_json(path, settings)


def _refuse_others(path: Path, settings: dict[str, Any]) -> None:
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MemofastError(f"{path} is damaged; choose another --out") from error
    for name, value in settings.items():
        if begun.get(name) != value:
            raise MemofastError(
                f"{path.parent} was begun with {name} {begun.get(name)!r}, not {value!r}; use the same options or "
                "another --out"
            )

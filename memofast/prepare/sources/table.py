"""Tables of samples: CSV, TSV, JSON and JSON lines with columns id, file, start, end, text, label and group under any
names."""

import csv
import io
import json
import string
from dataclasses import dataclass, fields, replace
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.text.encoding import read_text

_JSON = {".json", ".jsonl", ".ndjson"}
_CSV = {".csv", ".tsv", ".txt"}


@dataclass(frozen=True)
class Columns:
    """Name of the table's column for each field, or a template of several, as `dia{Dialogue_ID}_utt{Utterance_ID}`.

    emotions, value: read only where a column is named, since tables often have columns of these names that mean
    something else.
    """

    id: str = "id"
    file: str = "file"
    start: str = "start"
    end: str = "end"
    text: str = "text"
    label: str = "label"
    group: str = "group"
    emotions: str | None = None
    value: str | None = None


def parse_columns(given: list[str]) -> Columns:
    """Columns from `field=column` pairs. Raises MemofastError for an unknown field."""
    known = [column.name for column in fields(Columns)]
    columns = Columns()
    for pair in given:
        name, equals, column = pair.partition("=")
        if name not in known or not equals or not column:
            raise MemofastError(f"--column is FIELD=COLUMN with a field of {', '.join(known)}, not {pair!r}")
        columns = replace(columns, **{name: column})
    return columns


def read_table(path: Path, columns: Columns, split_column: str | None = None) -> list[dict[str, str]]:
    """Rows of a table, each a dict of the fields it has: `id`, `file`, `start`, `end`, `text`, `label`, `group`,
    `emotions`, `value`, `split`.

    Fields under their own name may be absent; a column that was given another name must be there. JSON is a list of
    objects, an object of objects by id, or of captions as MEmoBERT's `ref_captions.json` (`{id: [sentence]}`, `{id:
    {"txt": [sentence], "label": l}}`).
    Raises MemofastError for no rows, a missing column or an unknown format.
    """
    rows = _raw_rows(path, columns.emotions)
    if not rows:
        raise MemofastError(f"{path} has no rows; give a table with a header and at least one row")
    header = list(rows[0])
    wanted = {column.name: name for column in fields(Columns) if (name := getattr(columns, column.name))}
    if split_column:
        wanted["split"] = split_column
    present = {name: column for name, column in wanted.items() if _needed(column) <= set(header)}
    for name, column in wanted.items():
        if name not in present and column != name:
            raise MemofastError(f"{path} has no column {column!r} for {name}; it has {', '.join(header)}")
    if not present.keys() & {"file", "text"}:
        raise MemofastError(
            f"{path} has neither a file nor a text column; it has {', '.join(header)}: name one, e.g. --column "
            f"text={header[-1]}"
        )
    return [{name: _value(row, column) for name, column in present.items()} for row in rows]


def _needed(column: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(column) if name} if "{" in column else {column}


def _value(row: dict[str, str], column: str) -> str:
    return column.format_map(row) if "{" in column else row[column]


def _raw_rows(path: Path, listed: str | None) -> list[dict[str, str]]:
    suffix = path.suffix.lower()
    if suffix in _JSON:
        return _json_rows(path, suffix != ".json", listed)
    if suffix in _CSV:
        return _csv_rows(path)
    raise MemofastError(f"{path} is no media file and no table; tables end in {', '.join(sorted(_CSV | _JSON))}")


def _csv_rows(path: Path) -> list[dict[str, str]]:
    text = read_text(path)
    header = text.split("\n", 1)[0]
    delimiter = max("\t,;|", key=header.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="")
        return [{name: (row[name] or "").strip() for name in reader.fieldnames or []} for row in reader]
    except csv.Error as error:
        raise MemofastError(f"{path} is not a readable CSV table ({error})") from error


def _json_rows(path: Path, lines: bool, listed: str | None) -> list[dict[str, str]]:
    text = read_text(path)
    try:
        data = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except json.JSONDecodeError as error:
        raise MemofastError(f"{path} is not valid JSON (line {error.lineno}: {error.msg})") from error
    if isinstance(data, dict):
        data = [{"id": id, **_caption(value)} for id, value in data.items()]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise MemofastError(f"{path} must hold a list of objects, or an object of samples by id")
    names = list(dict.fromkeys(name for row in data for name in row))
    return [{name: _plain(row.get(name), "|" if name == listed else " ") for name in names} for row in data]


def _caption(value: object) -> dict[str, object]:
    if isinstance(value, dict):
        return {("text" if name == "txt" else name): part for name, part in value.items()}
    return {"text": value}


def _plain(value: object, joint: str) -> str:
    if value is None:
        return ""
    return joint.join(map(str, value)) if isinstance(value, list) else str(value)

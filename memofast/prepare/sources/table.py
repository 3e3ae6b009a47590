"""Tables of samples: CSV, TSV, JSON and JSON lines with columns id, file, start, end, text, label, group and more under
any names."""

import csv
import io
import json
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.sources.folders import one_line
from memofast.prepare.text.encoding import read_text

_JSON = {".json", ".jsonl", ".ndjson"}
_CSV = {".csv", ".tsv", ".txt"}
TABLES = _CSV | _JSON
_NAMED = 8  # columns in a note


class _Constant(str):
    """NaN, Infinity or -Infinity of a JSON file, which are no strings there."""


@dataclass(frozen=True)
class Columns:
    """Name of the table's column for each field, or a template of several, as `dia{Dialogue_ID}_utt{Utterance_ID}`.

    dialogue, position, speaker: the conversation in which something is said, its number there, and who says it; without
    position rows of a dialogue stand in their order. They, emotions and value are read only where a column is named,
    since tables often have columns of these names that mean something else. None: nothing is read of it.
    """

    id: str = "id"
    file: str = "file"
    start: str = "start"
    end: str = "end"
    text: str = "text"
    label: str | None = "label"
    group: str | None = "group"
    dialogue: str | None = None
    position: str | None = None
    speaker: str | None = None
    emotions: str | None = None
    value: str | None = None


class _OpenQuote(Exception):
    """The row that begins in this line cannot be read by its quotes."""

    def __init__(self, line: int, reason: object):
        super().__init__(line, reason)
        self.line, self.reason = line, reason


@dataclass
class Table:
    """rows: each a dict of the fields it has. problems: by place of a row why it cannot be used. notes: what was chosen
    or is odd, a line each."""

    rows: list[dict[str, str]]
    problems: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def names_any(columns: Columns) -> bool:
    """Whether a column is named otherwise than it is read without a word."""
    usual = vars(Columns())
    return any(column not in (None, usual[name]) for name, column in vars(columns).items())


def parse_columns(given: list[str]) -> Columns:
    """Columns from `field=column` pairs. Raises MemofastError for an unknown field or one named twice, for what is no
    template, and for a position in no dialogue."""
    known = [column.name for column in fields(Columns)]
    columns, named = Columns(), {}
    for pair in given:
        name, equals, column = pair.partition("=")
        if name not in known or not equals or not column:
            raise MemofastError(f"--column is FIELD=COLUMN with a field of {', '.join(known)}, not {pair!r}")
        if named.setdefault(name, column) != column:
            raise MemofastError(f"--column names {name} twice, as {named[name]!r} and {column!r}; keep one")
        _check_template(name, column)
        columns = replace(columns, **{name: column})
    if columns.position and not columns.dialogue:
        raise MemofastError(
            f"--column position={columns.position} is a number in a dialogue; name that too: -c dialogue=COLUMN"
        )
    return columns


def _check_template(name: str, column: str) -> None:
    if "{" not in column:
        return
    try:
        parts = list(string.Formatter().parse(column))
        odd = any(name == "" or (name and converted) or "{" in (how or "") for _, name, how, converted in parts)
        fault = odd or not _filled(column, dict.fromkeys(_needed(column), "cell"))
    except ValueError:
        fault = True
    if fault:
        raise MemofastError(
            f"--column {name}={column} is no template; in one columns stand in braces, as dia{{Dialogue_ID}}, and "
            "other braces are doubled"
        )


def read_table(path: Path, columns: Columns, split_column: str | None = None) -> Table:
    """Rows of a table, each a dict of the fields of `Columns` that it has, and `split`.

    Fields under their own name may be absent; a column that was given another name must be there. JSON is a list of
    objects, an object of objects by id, or of captions as MEmoBERT's `ref_captions.json` (`{id: [sentence]}`, `{id:
    {"txt": [sentence], "label": l}}`), of which several sentences are several rows.
    Raises MemofastError for no rows, a missing column, a column that is there twice, a quote that is left open, or an
    unknown format.
    """
    table, header = _raw_table(path, columns)
    if not table.rows:
        raise MemofastError(f"{path} has no rows; give a table with a header and at least one row")
    wanted = {column.name: name for column in fields(Columns) if (name := getattr(columns, column.name))}
    if split_column:
        wanted["split"] = split_column
    present = {name: column for name, column in wanted.items() if _needed(column) <= set(header)}
    there = ", ".join(map(one_line, header))
    for name, column in wanted.items():
        if name not in present and column != name:
            raise MemofastError(f"{path} has no column {column!r} for {name}; it has {there}")
    if not present.keys() & {"file", "text"}:
        raise MemofastError(
            f"{path} has neither a file nor a text column; it has {there}: name one, e.g. --column "
            f"text={one_line(header[-1])}"
        )
    read = {part for column in present.values() for part in _needed(column)}
    if twice := sorted(name for name, count in Counter(header).items() if count > 1 and name in read):
        raise MemofastError(f"{path} has {header.count(twice[0])} columns {twice[0]!r}; rename all but one")
    notes = table.notes + _unread(path, header, present)
    return replace(table, rows=[_fields(row, present) for row in table.rows], notes=notes)


def _unread(path: Path, header: list[str], present: dict[str, str]) -> list[str]:
    """A note on the columns that nothing is read of; times are of a file."""
    fields_read = [name for name in present if "file" in present or name not in ("start", "end")]
    read = {part for name in fields_read for part in _needed(present[name])}
    if not (unread := [one_line(name) for name in dict.fromkeys(header) if name and name not in read]):
        return []
    more = f" and {len(unread) - _NAMED} others" if len(unread) > _NAMED else ""
    found = ", ".join(name if present[name] == name else f"{name}={present[name]}" for name in fields_read)
    return [f"{path}: columns not read: {', '.join(unread[:_NAMED])}{more}; read: {one_line(found)}"]


def _needed(column: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(column) if name} if "{" in column else {column}


def _fields(row: dict[str, str], present: dict[str, str]) -> dict[str, str]:
    """The fields of a row; NaN in place of anything but a time is nothing, nor is a template whose columns are all
    empty."""
    found = {name: _filled(column, row) if "{" in column else row[column] for name, column in present.items()}
    return {name: "" if _is_nan(cell) and name not in ("start", "end") else cell for name, cell in found.items()}


def _filled(template: str, row: dict[str, str]) -> str:
    cells = {name: "" if _is_nan(row[name]) else row[name] for name in _needed(template)}
    if not any(map(str.strip, cells.values())):
        return ""
    parts = string.Formatter().parse(template)  # names as they are: `Sr No.` is no attribute of `Sr No`
    return "".join(text + ("" if name is None else format(cells[name], how)) for text, name, how, _ in parts)


def _is_nan(cell: str) -> bool:
    return isinstance(cell, _Constant) and cell == "NaN"


def _raw_table(path: Path, columns: Columns) -> tuple[Table, list[str]]:
    """Rows by column, and the columns in order."""
    suffix = path.suffix.lower()
    if suffix in _JSON:
        return _json_table(path, suffix != ".json", columns.emotions)
    if suffix in _CSV:
        return _csv_table(path)
    raise MemofastError(f"{path} is no media file and no table; tables end in {', '.join(sorted(TABLES))}")


def _csv_table(path: Path) -> tuple[Table, list[str]]:
    text = read_text(path)
    delimiter = max("\t,;|", key=text.split("\n", 1)[0].count)
    lines, notes = csv_cells(path, text, delimiter)
    if not lines:
        return Table([]), []
    (_, header), *lines = lines
    header = [name.strip() for name in header]
    rows, problems, short = [], {}, []
    for number, cells in lines:
        cells = [cell.strip() for cell in cells]
        if len(cells) < len(header):
            short.append(number)
        elif any(cells[len(header) :]):
            problems[len(rows)] = f"bad row: line {number} has {len(cells)} cells, the header {len(header)}"
        rows.append(dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=False)))
    if short:
        notes.append(
            f"{path}: {len(short)} rows have fewer cells than the header (first: line {short[0]}); what they lack is "
            "empty"
        )
    return Table(rows, problems, notes), header


def csv_cells(path: Path, text: str, delimiter: str) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Rows with the number of the line in which they begin, empty ones left out, and notes.

    Quotes are characters of the text where every line has as many cells as the header without them and they cannot be
    followed, or would join lines of a file whose cells are apart by tabs, which texts hardly hold.
    Raises: `MemofastError` naming the line where quotes cannot be followed and lines alone make no table.
    """
    lines = list(_numbered(text, delimiter, csv.QUOTE_NONE))
    width = len(lines[0][1]) if lines else 0
    quoted = any(len(cell) > 1 and cell[0] == cell[-1] == '"' for _, cells in lines for cell in map(str.strip, cells))
    even = width > 1 and not quoted and all(len(cells) == width for _, cells in lines)
    try:
        rows = list(_numbered(text, delimiter, csv.QUOTE_MINIMAL))
    except _OpenQuote as error:
        if even:
            return lines, [_literal(path, error.line)]
        raise MemofastError(
            f"{path}, line {error.line}: {error.reason}; close the quote, and double quotes inside a quoted cell"
        ) from error
    joined = _joined(rows, lines, width, 2 if delimiter == "\t" else 3)
    if even and delimiter == "\t" and (short := joined + [number for number, cells in rows if len(cells) < width]):
        return lines, [_literal(path, min(short))]
    return rows, [
        f"{path}: the quoted cell that begins in line {number} goes over lines that look like rows; close its quote if "
        "it should end before"
        for number in joined
    ]


def _numbered(text: str, delimiter: str, quoting: int) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    last = 0
    try:
        for cells in reader:
            if cells:
                yield last + 1, cells
            last = reader.line_num
    except csv.Error as error:
        raise _OpenQuote(last + 1, error) from error


def _literal(path: Path, line: int) -> str:
    return f"{path}: line {line} has a quote that is not closed in it; quotes are read as characters of the text"


def _joined(
    rows: list[tuple[int, list[str]]], lines: list[tuple[int, list[str]]], width: int, fewest: int
) -> list[int]:
    """Lines in which rows of several lines begin that hold a line as long as a row, of `fewest` cells or more."""
    begins = {number for number, _ in rows}
    found, begin = [], 0
    for number, cells in lines:
        if number in begins:
            begin = number
        elif len(cells) == width >= fewest and begin not in found[-1:]:
            found.append(begin)
    return found


def _json_table(path: Path, lines: bool, listed: str | None) -> tuple[Table, list[str]]:
    text = read_text(path)
    number = 0
    try:
        if lines:
            data = []
            for number, line in enumerate(text.split("\n"), 1):  # noqa: B007
                if line.strip():
                    data.append(_parsed(line))
        else:
            data = _parsed(text)
    except json.JSONDecodeError as error:
        raise MemofastError(f"{path} is not valid JSON (line {number or error.lineno}: {error.msg})") from error
    except (ValueError, RecursionError) as error:
        where = f"line {number}: " if number else ""
        told = error if isinstance(error, ValueError) else "nested too deep"
        raise MemofastError(f"{path} cannot be read as a table ({where}{told})") from error
    if isinstance(data, dict):
        data = [row for id, value in data.items() for row in _captions(id, value)]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise MemofastError(f"{path} must hold a list of objects, or an object of samples by id")
    names = list(dict.fromkeys(name for row in data for name in row))
    rows = [{name: _plain(row.get(name), "|" if name == listed else " ") for name in names} for row in data]
    absent = sum(_is_nan(cell) for row in rows for cell in row.values())
    lists = sum(isinstance(cell, list) and len(cell) > 1 and n != listed for row in data for n, cell in row.items())
    notes = [f"{path}: NaN in {absent} cells is no value"] if absent else []
    notes += [f"{path}: {lists} cells are lists; their parts are joined by spaces"] if lists else []
    return Table(rows, notes=notes), names


def _parsed(text: str) -> object:
    return json.loads(text, object_pairs_hook=once_each, parse_constant=_Constant)


def once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose keys are all different; Python alone would keep the last of several. Raises: ValueError."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is there twice, keep one")
    return entries


def _captions(id: str, value: object) -> Iterator[dict[str, object]]:
    """A row for each sentence."""
    entry = value if isinstance(value, dict) else {"text": value}
    entry = {("text" if name == "txt" else name): part for name, part in entry.items()}
    sentences = entry.get("text")
    if not isinstance(sentences, list) or len(sentences) < 2:
        yield {"id": id, **entry}
        return
    for name, sentence in zip(sentence_ids(id, len(sentences)), sentences, strict=True):
        yield {"id": name, **entry, "text": sentence}


def sentence_ids(id: str, count: int) -> list[str]:
    """Ids of the sentences of one clip: its own where there is one, else numbered from 1."""
    return [id] if count == 1 else [f"{id}#{number}" for number in range(1, count + 1)]


def _plain(value: object, joint: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return joint.join(map(str, value)) if isinstance(value, list) else str(value)

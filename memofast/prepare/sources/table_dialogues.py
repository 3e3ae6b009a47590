"""Dialogues that tables name: which row is said at which place of which."""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.sources.folders import one_line

_DIGITS = 18  # of a position, which other programs keep in 64 bits


def positions_of(
    path: Path, rows: Sequence[Mapping[str, str]], without: Container[int]
) -> tuple[list[int | None], list[str]]:
    """The number of each row in its dialogue, None for one of no dialogue, and notes; without a column `position` from
    0 in the order of the rows.

    Args: without: places of rows that cannot be used. Raises: `MemofastError` naming the row whose position is no whole
        number, or taken.
    """
    found: list[int | None] = [None] * len(rows)
    taken: dict[str, dict[int, int]] = defaultdict(dict)
    for place, row in enumerate(rows):
        if place in without or not (dialogue := name_in(row, "dialogue")):
            continue
        there = taken[dialogue]
        number = _whole(row["position"]) if "position" in row else len(there)
        if number is None or number in there:
            has = f"position {_brief(row['position'])}"
            none = f", which is no whole number from 0 on (of up to {_DIGITS} digits)"
            why = has + (f" as row {there[number]} has" if number is not None else none)
            raise MemofastError(
                f"{path}, row {place + 1} of dialogue {one_line(dialogue)!r}: {why}; give each row of a dialogue a "
                "number of its own, or name no position where rows are in order"
            )
        there[number], found[place] = place + 1, number
    notes = []
    if taken and not any("position" in row for row in rows):
        notes.append(f"{path}: no position is named, so that dialogues are in the order of the rows")
    if lacking := sum("dialogue" in row and name_in(row, "dialogue") is None for row in rows):
        notes.append(f"{path}: {lacking} of {len(rows)} rows name no dialogue; they are by themselves")
    return found, notes


def apart(named: Sequence[tuple[str, set[str]]]) -> tuple[list[dict[str, str]], list[str]]:
    """A new name for each dialogue that several sources name, by source, and a note: tables of one corpus count theirs
    anew, and nobody goes on with a dialogue in another one.

    Args: named: name and dialogues of each source.
    """
    sources = [name for name, _ in named]
    new: list[dict[str, str]] = []
    for number, (name, dialogues) in enumerate(named, 1):
        others = set().union(*(found for place, (_, found) in enumerate(named, 1) if place != number))
        prefix = name if sources.count(name) == 1 else f"{name}-{number}"
        new.append({dialogue: f"{prefix}/{dialogue}" for dialogue in dialogues & others})
    if not (twice := sorted(set().union(*new))):
        return new, []
    return new, [
        f"{len(twice)} dialogues are named by several sources (first: {one_line(twice[0])}) and are different ones; "
        "theirs have the source's name before them"
    ]


def name_in(row: Mapping[str, str], field: str) -> str | None:
    """The name in a cell, spaces folded; None where there is none."""
    return " ".join(row.get(field, "").split()) or None


def _whole(cell: str) -> int | None:
    """7 for `7`, `07` and `7.0`, as programs write whole numbers of a column with gaps."""
    whole, _, fraction = cell.partition(".")
    known = whole.isascii() and whole.isdecimal() and not fraction.strip("0") and len(whole) <= _DIGITS
    return int(whole) if known else None


def _brief(cell: str) -> str:
    return repr(cell if len(cell) <= 2 * _DIGITS else f"{cell[:_DIGITS]}...")

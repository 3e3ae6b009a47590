"""What a preparation told of its sources: what was taken out of texts, chosen, doubtful or not used."""

from dataclasses import dataclass, field
from pathlib import Path

from memofast.data.summary import read_report
from memofast.prepare.sources.folders import LEFT_OUT
from memofast.prepare.text.text_log import RULES

_SHOWN = 12  # of each kind; the report has all


@dataclass(frozen=True)
class Account:
    """One kind of thing that was done or found. name: of the rule or reason; examples: (file, what), the first of
    `count`."""

    name: str
    count: int
    meaning: str
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class SourceAccounts:
    """removed: from texts, by rule. left_out: files and rows, by reason. chosen: of tracks and subtitles, by file.
    encodings: files that are not UTF-8. notes: sentences."""

    removed: list[Account] = field(default_factory=list)
    left_out: list[Account] = field(default_factory=list)
    chosen: list[Account] = field(default_factory=list)
    encodings: list[Account] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.removed, self.left_out, self.chosen, self.encodings, self.notes))


def source_accounts(corpus: Path) -> SourceAccounts:
    """What the report in a corpus folder tells of its sources; nothing where there is none. Raises: `MemofastError`
    for a damaged one."""
    report = read_report(corpus)
    text = report.get("text") or {}
    removed = [
        Account(rule, found["count"], RULES.get(rule, ""), [(one["file"], one["text"]) for one in found["samples"]])
        for rule, found in text.get("removed", {}).items()
    ]
    left_out = [
        Account(reason, found["count"], LEFT_OUT.get(reason, ""), _pairs(found["files"], "file", "detail"))
        for reason, found in report.get("left_out", {}).items()
    ]
    chosen = [
        _listed("tracks of a file", report.get("streams", {}), "which of several tracks were read"),
        _listed("subtitles of a film", report.get("subtitles", {}), "where its sentences were read"),
    ]
    found = text.get("encodings", {})
    encodings = [
        _listed(name, {file: f"{one['encoding']} {one['detail']}".strip() for file, one in those.items()}, meaning)
        for name, meaning, those in (
            ("doubtful", "a guess: look at the text", {f: one for f, one in found.items() if one["doubtful"]}),
            ("told by the text", "no other fits as well", {f: one for f, one in found.items() if not one["doubtful"]}),
        )
    ]
    return SourceAccounts(
        removed, left_out, [one for one in chosen if one.count], [one for one in encodings if one.count],
        list(report.get("notes", [])),
    )  # fmt: skip


def _pairs(entries: list[dict], first: str, second: str) -> list[tuple[str, str]]:
    return [(entry[first], entry.get(second) or "") for entry in entries[:_SHOWN]]


def _listed(name: str, found: dict[str, str], meaning: str) -> Account:
    return Account(name, len(found), meaning, [(file, str(what)) for file, what in list(found.items())[:_SHOWN]])

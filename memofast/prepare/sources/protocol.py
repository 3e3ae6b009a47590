"""What belongs to a corpus beside its clips: its classes in order, groups that stay whole, folds, and facts for
`corpus.json`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memofast.data.folds import write_folds, write_groups
from memofast.errors import MemofastError
from memofast.prepare.sources.clips import Clip

OF_TABLES = ("group", "dialogue", "position", "speaker")  # fields whose groups a corpus keeps


@dataclass(frozen=True)
class Scheme:
    """Folds, each `train`, `validation` and `test` ids. by: the group that no two parts of a fold may share."""

    folds: Sequence[Mapping[str, Sequence[str]]]
    by: str | None = None


@dataclass(frozen=True)
class Protocol:
    """classes: of `label`, in order; else the labels found, by name. emotions: classes that a sample has shares of.
    value: what its number means.

    groups: name -> id -> group. schemes: of folds. whole: group that the splits must not share. scripted: everybody
    says the same sentences, so that a sentence in two splits is no leak. facts: entries for `corpus.json`. notes: for
    people.
    """

    classes: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    value: str = ""
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    whole: str | None = None
    scripted: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def protocol_of_tables(clips: Iterable[Clip]) -> Protocol:
    """What tables say: groups by the names of their fields, emotions by name, numbers."""
    clips = list(clips)
    groups: dict[str, dict[str, str]] = {}
    for name in OF_TABLES:
        known = {clip.id: getattr(clip, name) for clip in clips}
        groups[name] = {id: str(said) for id, said in known.items() if said is not None}
    return Protocol(
        emotions=tuple(sorted({name for clip in clips for name in clip.emotions})),
        value="a column of its table" if any(clip.value is not None for clip in clips) else "",
        groups={name: group_of for name, group_of in groups.items() if group_of},
    )


def refuse_leaks(clips: Iterable[Clip], protocol: Protocol) -> None:
    """Raises `MemofastError` where a group that must stay whole stands in two splits, or in two parts of one fold."""
    if protocol.whole:
        parts: dict[str, list[str]] = {}
        for clip in clips:
            parts.setdefault(clip.split or "", []).append(clip.id)
        _refuse(protocol.groups[protocol.whole], parts, f"the splits leak: {protocol.whole}")
    for name, scheme in protocol.schemes.items():
        for number, fold in enumerate(scheme.folds, 1):
            if scheme.by:
                _refuse(protocol.groups[scheme.by], fold, f"fold {number} of {name} leaks: {scheme.by}")


def _refuse(group_of: Mapping[str, str], parts: Mapping[str, Iterable[str]], what: str) -> None:
    home: dict[str, str] = {}
    for part, ids in parts.items():
        for id in ids:
            if id in group_of and home.setdefault(group_of[id], part) != part:
                group = group_of[id]
                raise MemofastError(f"{what} {group!r} is in {home[group]} and in {part}; mend the source")


def write_protocol(out: Path, protocol: Protocol, kept: Iterable[str]) -> None:
    """Write groups and folds beside the finished corpus at `out`; ids that were dropped leave them."""
    there = set(kept)
    for name, group_of in protocol.groups.items():
        write_groups(out, name, {id: group for id, group in group_of.items() if id in there})
    for name, scheme in protocol.schemes.items():
        folds = [{part: [id for id in ids if id in there] for part, ids in fold.items()} for fold in scheme.folds]
        write_folds(out, name, folds, scheme.by)


def count_groups(protocol: Protocol) -> str:
    """`groups: speaker 10, dialogue 151; folds: speaker 10`, or nothing."""
    groups = [f"{name} {len(Counter(group_of.values()))}" for name, group_of in protocol.groups.items()]
    folds = [f"{name} {len(scheme.folds)}" for name, scheme in protocol.schemes.items()]
    told = {"groups": ", ".join(groups), "folds": ", ".join(folds)}
    return "; ".join(f"{what}: {counts}" for what, counts in told.items() if counts)

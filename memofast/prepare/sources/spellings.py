"""Names that are written in several ways: classes, splits and groups that differ in case or number form alone."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.folders import one_line

_NOTHING = {"nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "n/a", "N/A", "#N/A"}  # as programs write nothing
_MOST = 5  # lines of a kind


KINDS = ("label", "emotion", "split", "group", "dialogue", "speaker")


def spelling_notes(clips: Iterable[Clip], kinds: Sequence[str] = KINDS) -> list[str]:
    """A line for each set of labels, emotions, splits, groups, dialogues or speakers that may be meant as one, with
    counts and remedy, and for each name that may be none. kinds: those that are looked at."""
    found = {kind: Counter() for kind in kinds}
    for clip in clips:
        for kind in kinds:
            names = clip.emotions if kind == "emotion" else [getattr(clip, kind)]
            found[kind].update(filter(None, names))
    return [note for kind, counts in found.items() for note in _notes(kind, counts)]


def label_notes(labels: Iterable[str | None]) -> list[str]:
    """The same for labels alone."""
    return _notes("label", Counter(label for label in labels if label))


def _notes(kind: str, counts: Counter[str]) -> list[str]:
    alike: dict[str, list[str]] = {}
    for name in sorted(counts):
        alike.setdefault(plain_form(name), []).append(name)
    notes = [
        f"{kind}s {_listed(names, counts)} differ in case, spaces or number form alone and are {len(names)} different "
        f"{kind}s; write them alike if they are one"
        for names in alike.values()
        if len(names) > 1
    ]
    if len(notes) > _MOST:
        notes[_MOST:] = [f"{kind}s differ so in {len(notes) - _MOST} more sets"]
    taken = "class" if kind in ("label", "emotion") else kind
    notes += [
        f"{kind} {_listed([name], counts)} is taken for a {taken}; leave the cell empty where there is none"
        for name in sorted(counts)
        if name in _NOTHING
    ]
    return notes


def _listed(names: Iterable[str], counts: Counter[str]) -> str:
    return ", ".join(f"'{one_line(name)}' ({counts[name]})" for name in names)


def plain_form(name: str) -> str:
    """What two spellings of one name share: letters without case, width and composition, spaces folded, `1.0` as
    `1`."""
    folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    try:
        return format(float(folded), ".17g")
    except ValueError:
        return folded

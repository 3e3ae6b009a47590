"""Which clip is for training and which for validation or test: by a hash that never changes, or as the source says."""

import hashlib
import re
from collections.abc import Iterable, Mapping

from memofast.errors import MemofastError
from memofast.prepare.sources.clips import Clip

TRAIN = "train"
_PLAIN = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_LONGEST_NAME = 200  # bytes


def parse_fractions(given: list[str]) -> dict[str, float]:
    """Fractions from `validation=0.1` pairs; raises MemofastError where they are no fractions or leave nothing to
    train."""
    fractions = {}
    for pair in given:
        name, _, value = pair.partition("=")
        try:
            fractions[name] = float(value)
        except ValueError:
            fractions[name] = -1.0
        if not name or name == TRAIN or not 0 < fractions[name] < 1:
            raise MemofastError(f"--split is NAME=FRACTION, as validation=0.1, not {pair!r}; the rest is {TRAIN}")
    if sum(fractions.values()) >= 1:
        raise MemofastError(f"--split fractions add up to {sum(fractions.values()):g} and leave nothing for {TRAIN}")
    return fractions


def check_split_names(names: Iterable[str]) -> None:
    """Raises MemofastError for a split that no file can be named after."""
    for name in names:
        size = len(name.encode("utf-8", "surrogatepass"))
        if name.startswith(".") or size > _LONGEST_NAME or not _PLAIN.fullmatch(name):
            raise MemofastError(f"split {name!r} cannot name a file; use letters, digits, spaces, - and _")


def assign_splits(clips: Iterable[Clip], fractions: Mapping[str, float], split_by: str) -> dict[str, list[str]]:
    """Ids of each split, sorted.

    A clip whose source names its split is in that one. The others are drawn by BLAKE2b of their id, or of their group
    by `split_by` (one speaker's clips stay together), so that a clip keeps its split when others come or go.
    """
    splits: dict[str, list[str]] = {}
    for clip in clips:
        splits.setdefault(split_of(clip, fractions, split_by), []).append(clip.id)
    return {name: sorted(ids) for name, ids in sorted(splits.items())}


def split_of(clip: Clip, fractions: Mapping[str, float], split_by: str) -> str:
    """The split that the clip's source names, else the drawn one."""
    group = group_of(clip, split_by)
    return clip.split or draw_split(clip.id if group is None else group, fractions)


def group_of(clip: Clip, kind: str) -> str | None:
    """The clip's `folder`, media `file` or the table's `group`, `dialogue` or `speaker`; its `id` where that is asked
    for, None where it has none."""
    file = clip.picture or clip.sound
    return file and str(file) if kind == "file" else getattr(clip, kind)


def draw_split(name: str, fractions: Mapping[str, float]) -> str:
    """The split of a sample or group by BLAKE2b of its name; the rest is train."""
    place = hash_share(name)
    for split, fraction in fractions.items():
        if place < fraction:
            return split
        place -= fraction
    return TRAIN


def hash_share(name: str) -> float:
    """A number in [0, 1) that never changes: BLAKE2b-64 of the name, little-endian."""
    named = name.encode("utf-8", "surrogateescape")  # a path may be no UTF-8
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little") / 2**64

"""What an adapter is and gives, and the steps that several of them share."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from memofast.data.folds import leave_groups_out
from memofast.prepare.sources.clips import AUDIO, VIDEO, Clip
from memofast.prepare.sources.folders import LeftOut, left_out, walk
from memofast.prepare.sources.protocol import Protocol, Scheme


class WrongLayout(Exception):
    """The folder is not what the adapter reads; the message names what is missing or odd."""


@dataclass(frozen=True)
class Reading:
    """The clips of a corpus and what belongs to them. left_out, notes, subtitles: see `clips.Found`."""

    clips: list[Clip]
    protocol: Protocol
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    subtitles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """layout: what the folder must hold, in words. settings: name -> values that are allowed, the default first.

    read: folder and chosen settings -> reading; raises `WrongLayout`.
    """

    layout: str
    read: Callable[[Path, Mapping[str, str]], Reading]
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)


def files_by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files below a folder by their name without suffix, hidden ones left out; of two of one name the first in order of
    paths."""
    wanted, found = set(suffixes), {}
    for path in walk(folder, wanted)[0]:
        if path.suffix.lower() in wanted:
            found.setdefault(path.stem, path)
    return found


def unused_media(folder: Path, clips: Iterable[Clip]) -> list[LeftOut]:
    """Media of a corpus that no clip uses, a line for each of their folders: without a label in use, of another part,
    or beside a file of the same name; and what is left out of any folder."""
    used = {path for clip in clips for path in (clip.picture, clip.sound)}
    files, missed = walk(folder, AUDIO | VIDEO)
    unused: dict[Path, list[str]] = {}
    for path in files:
        if path.suffix.lower() in AUDIO | VIDEO and path not in used:
            unused.setdefault(path.parent, []).append(path.name)
    return missed + [
        left_out(path, "without a sample", f"{len(names)} files, the first {names[0]}")
        for path, names in unused.items()
    ]


def missing_parts(clips: Sequence[Clip], corpus: str) -> list[str]:
    """A note for each of film, sound and words that some samples have and others lack."""
    has = {"film": lambda clip: clip.picture, "sound": lambda clip: clip.sound, "words": lambda clip: clip.text}
    notes = []
    for part, of in has.items():
        without = sorted(clip.id for clip in clips if not of(clip))
        if 0 < len(without) < len(clips):
            notes.append(f"{corpus}: {len(without)} of {len(clips)} samples have no {part} (first: {without[0]})")
    return notes


def one_of(folder: Path, *names: str) -> Path | None:
    """The first of these files or folders that is there."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def pair_folds(speaker_of: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> Scheme:
    """Folds by speaker: of each pair the first is validation and the second test, then the other way round; all others
    train.

    Source: MEmoBERT's folds of IEMOCAP and MSP-IMPROV. Pairs of which a speaker is missing give no fold.
    """
    ids: dict[str, list[str]] = {}
    for id, speaker in speaker_of.items():
        ids.setdefault(speaker, []).append(id)
    folds = []
    for first, second in pairs:
        if first not in ids or second not in ids or len(ids) < 3:
            continue
        train = [id for id, speaker in speaker_of.items() if speaker not in (first, second)]
        for validation, test in ((first, second), (second, first)):
            folds.append({"train": train, "validation": ids[validation], "test": ids[test]})
    return Scheme(folds, "speaker")


def speaker_schemes(speaker_of: Mapping[str, str], counts: Mapping[str, int | None]) -> dict[str, Scheme]:
    """Schemes of folds that share no speaker: name -> how many folds, None for one a speaker; those that need more
    speakers are left out."""
    speakers = len(set(speaker_of.values()))
    return {
        name: Scheme(leave_groups_out(speaker_of, count), "speaker")
        for name, count in counts.items()
        if max(3, count or 0) <= speakers
    }


def by_own_folds(clips: list[Clip], protocol: Protocol, corpus: str) -> Reading:
    """A reading without official splits: train, validation and test are the first fold of its first scheme, and that is
    told.

    Where speakers are too few for folds, all but the last of them train and the last is validation.
    """
    schemes = {name: scheme for name, scheme in protocol.schemes.items() if scheme.folds}
    if schemes:
        name, scheme = next(iter(schemes.items()))
        split_of = {id: part for part, ids in scheme.folds[0].items() for id in ids}
        note = f"train, validation and test are fold 1 of scheme {name}"
    else:
        speaker_of = protocol.groups["speaker"]
        *train, last = sorted(set(speaker_of.values())) or [""]
        split_of = {
            id: "train" if speaker in train or not train else "validation" for id, speaker in speaker_of.items()
        }
        parts = f"train is {', '.join(train)}, validation {last}" if train else "all is train"
        note = f"too few speakers for folds; {parts}"
    placed = [replace(clip, split=split_of[clip.id]) for clip in clips]
    notes = (*protocol.notes, f"{corpus}: no official splits; {note}")
    return Reading(placed, replace(protocol, schemes=schemes, notes=notes))


def counted(left_out: Counter) -> str:
    """`12 frustrated, 3 without majority`, the largest count first."""
    return ", ".join(f"{count} {name}" for name, count in left_out.most_common())


def groups_of(clips: Iterable[Clip], **name_of: Callable[[Clip], str]) -> dict[str, dict[str, str]]:
    """Groups by name, each from a function of a clip."""
    clips = list(clips)
    return {name: {clip.id: of(clip) for clip in clips} for name, of in name_of.items()}

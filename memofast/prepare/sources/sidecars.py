"""Which subtitles belong to which film, by their names, and which of several are read.

`film.srt` belongs to `film.mp4`, and so do `film.en.srt`, `film.en-US.sdh.vtt` and `film_eng.srt`: languages and marks
may stand between name and suffix.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.sources.folders import AUDIO, VIDEO, LeftOut, left_out
from memofast.prepare.subtitles.timings import SIDECARS, WORDS, Cue, read_cues
from memofast.prepare.text.languages import LANGUAGES

_TAG = re.compile(r"[a-z]{2,3}([-_][a-z0-9]{1,8})*")  # en, eng, en-US, zh_Hans
_MARKS = {"sdh", "cc", "default", "orig", "original", "auto", "asr", "full", "captions", "subs", "subtitles"}
_MARKS |= {suffix[1:] for suffix in VIDEO | AUDIO}  # film.mp4.srt
_OF_PARTS = {"forced", "foreign", "signs", "songs"}


@dataclass(frozen=True)
class Sidecar:
    """Subtitles of a film. tags: what stands between the film's name and the suffix, in small letters."""

    path: Path
    tags: tuple[str, ...] = ()

    @property
    def of_parts(self) -> bool:
        return bool(_OF_PARTS & set(self.tags))

    def speaks(self, language: str) -> bool:
        return plain_language(language) in map(plain_language, self.tags)


def plain_language(tag: str) -> str:
    """A language without region and script, by its shortest code where that is known."""
    name = re.split(r"[-_]", tag.lower())[0]
    return LANGUAGES.get(name, name)


def pair(sidecars: Iterable[Path], stems: Iterable[Path]) -> tuple[dict[Path, list[Sidecar]], list[Path]]:
    """The sidecars of each film, which is a path without suffix, and those whose film is not there.

    Letters in capitals count as small ones where no name is written alike.
    """
    exact = set(stems)
    folded: dict[Path, list[Path]] = {}
    for stem in exact:
        folded.setdefault(_folded(stem), []).append(stem)
    unique = {key: found[0] for key, found in folded.items() if len(found) == 1}
    pairs: dict[Path, list[Sidecar]] = {}
    alone = []
    for path in sidecars:
        for name, tags in _names(path.stem):
            stem = path.with_name(name)
            stem = stem if stem in exact else unique.get(_folded(stem))
            if stem is not None:
                pairs.setdefault(stem, []).append(Sidecar(path, tags))
                break
        else:
            alone.append(path)
    return pairs, alone


def _folded(stem: Path) -> Path:
    return stem.with_name(stem.name.casefold())


def _names(stem: str) -> Iterable[tuple[str, tuple[str, ...]]]:
    """The film's names that a sidecar's may stand for, the longest first, and what is left of it."""
    yield stem, ()
    name, tags = stem, ()
    while "." in name:
        name, _, tag = name.rpartition(".")
        if not name or not (_TAG.fullmatch(tag.lower()) or tag.lower() in LANGUAGES.keys() | _MARKS | _OF_PARTS):
            break
        tags = (tag.lower(), *tags)
        yield name, tags
    apart = re.fullmatch(r"(.+)[-_ ]([A-Za-z]+)", stem)
    if apart and apart[2].lower() in LANGUAGES:  # these signs stand in names too, so that only known languages count
        yield apart[1], (apart[2].lower(),)


def choose(
    found: list[Sidecar], subtitles: str, language: str | None
) -> tuple[Sidecar | None, list[Cue], list[LeftOut]]:
    """Which of a film's sidecars is read, its cues, and the others with their reasons.

    Of several that can be read: one in `language`, else one that is named as the film alone, by kind, else the one with
    most seconds of text, as of streams. Raises: `MemofastError` where the only one, or all, cannot be read.
    """
    missed = [left_out(one.path, "subtitles of parts") for one in found if one.of_parts]
    found = [one for one in found if not one.of_parts]
    if subtitles == "none":
        unwanted = [one for one in found if one.path.suffix.lower() != WORDS]
        missed += [left_out(one.path, "subtitles not asked for") for one in unwanted]
        found = [one for one in found if one not in unwanted]
    if not found:
        return None, [], missed
    if len(found) == 1:
        return found[0], read_cues(found[0].path), missed
    read: dict[Path, list[Cue] | MemofastError] = {one.path: _read(one.path) for one in found}
    chosen = max(found, key=lambda one: _rank(one, read, language))
    for one in found:
        if one is not chosen:
            why = f"; {read[one.path]}" if isinstance(read[one.path], MemofastError) else ""
            missed.append(left_out(one.path, "other subtitles", f"{chosen.path.name} is used{why}"))
    if isinstance(read[chosen.path], MemofastError):
        raise read[chosen.path]
    return chosen, read[chosen.path], missed


def _read(path: Path) -> list[Cue] | MemofastError:
    try:
        return read_cues(path)
    except MemofastError as error:
        return error


def _rank(one: Sidecar, read: Mapping[Path, list[Cue] | MemofastError], language: str | None) -> tuple:
    cues = read[one.path]
    usable = bool(cues) and not isinstance(cues, MemofastError)
    seconds = sum(cue.end - cue.start for cue in cues if cue.start is not None) if usable else 0.0
    asked = language is not None and one.speaks(language)
    named = not one.tags
    return usable, asked, named, 0.0 if named else round(seconds, 3), -SIDECARS.index(one.path.suffix.lower())

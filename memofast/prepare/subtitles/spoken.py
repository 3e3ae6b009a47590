"""What of a subtitle is said, and by how many: no songs, descriptions and names of speakers; each turn by itself."""

import re
from itertools import chain

from memofast.prepare.subtitles.speakers import speaker_before
from memofast.prepare.text.text_log import tell_removed

_DASHES = "-\u2010-\u2015\u2212"
_DASH = re.compile(rf"^[{_DASHES}]+\s*(?=\S)")
_SENTENCE_END = r"[.?!\u2026\"'\u201d\u2019\u3002\uff1f\uff01\u266a)\]]"
_INNER_DASH = re.compile(rf"(?<={_SENTENCE_END})\s+[{_DASHES}]\s*(?=\S)")
_INNER_CHEVRONS = re.compile(rf"(?<={_SENTENCE_END})\s+(?=>{{2,}})")
_BARE_DASH = re.compile(rf"\s[{_DASHES}]\s+(?=\S)")
_CHEVRONS = re.compile(r"^>{2,}\s*")

_NOTE = "\u2669-\u266c\U0001f3b5\U0001f3b6"
_PAIRED_NOTES = re.compile(rf"[{_NOTE}]+[^{_NOTE}]+[{_NOTE}]+")
_NOTES = re.compile(rf"[{_NOTE}]+")
_STARTS_SUNG, _ENDS_SUNG = re.compile(rf"^\W*[{_NOTE}]"), re.compile(rf"[{_NOTE}]\W*$")
_HASHES = re.compile(r"#+(?=\s).*\S\s+#+|#(?![\d\s#])[^#]*[^\s#A-G]#", re.S)  # not `#1 in C#`

_DESCRIBED = re.compile(r"^:\s+")  # what `[JOHN]: Stop` leaves
_BRACKETS = re.compile(
    r"\s*(?:\[[^\[\]]*\]|(?<![:;=8])\([^()]*\)|\uff08[^\uff08\uff09]*\uff09|\u3010[^\u3010\u3011]*\u3011|\uff3b[^\uff3d]*\uff3d)"
)


def turns_of(text: str, capitals: bool = False) -> list[str]:
    """What each speaker says in a cue, "" for one who says nothing.

    Turns begin at lines with a dash, chevrons or a speaker's name, and at dashes within a line that began with one.
    Args: text: lines. capitals: see `speakers.in_capitals`.
    """
    turns: list[list[str]] = []
    lines = _without_songs(text.split("\n"))
    for line in chain.from_iterable(map(_split, lines)):
        opens = _DASH.match(line) or _CHEVRONS.match(line)
        if not turns or opens or speaker_before(_without_descriptions(line, False).strip(), capitals):
            turns.append([])
        turns[-1].append(_DASH.sub("", line))
    return [said(" ".join(turn), capitals) for turn in turns]


def said(text: str, capitals: bool = False) -> str:
    """The words of one turn without what is described, and without the name of who says them."""
    text = " ".join(_without_descriptions(text).split())
    text = _DESCRIBED.sub("", text)
    if chevrons := _CHEVRONS.match(text):
        tell_removed("speaker", chevrons[0].strip())
        text = text[chevrons.end() :]
    text = _DASH.sub("", text)
    if named := speaker_before(text, capitals, marked=bool(chevrons)):
        tell_removed("speaker", named.strip())
        text = text[len(named) :]
    return _DASH.sub("", text).strip()


def _split(line: str) -> list[str]:
    """A line, or the turns on it: `- a? - b`, `>> a >> b`."""
    parts = _INNER_CHEVRONS.split(line)
    found = []
    for part in parts:
        if not _DASH.match(part):
            found.append(part)
            continue
        inner = _INNER_DASH.split(part)
        bare = list(_BARE_DASH.finditer(part))
        if len(inner) == 1 and len(bare) == 1 and part[bare[0].end()].isupper():
            inner = [part[: bare[0].start()], part[bare[0].end() :]]
        found += [inner[0], *(f"- {turn}" for turn in inner[1:])]
    return found


def _without_songs(lines: list[str]) -> list[str]:
    """Lines that are not sung: those that begin with a note, to the note that ends them, and all within `#`."""
    if lines and _HASHES.fullmatch("\n".join(lines).strip()):
        tell_removed("song", " ".join(lines))
        return []
    kept, place = [], 0
    while place < len(lines):
        line = lines[place]
        if _STARTS_SUNG.match(line):
            rest = _PAIRED_NOTES.sub("", line, count=1)
            if rest != line and re.search(r"\w", rest) and not _NOTES.search(rest):
                tell_removed("song", line)  # words follow the song on its line
                kept.append(rest.strip())
                place += 1
                continue
            last = place if _ends_sung(line) else _last_sung(lines, place)
            tell_removed("song", " ".join(lines[place : last + 1]))
            place = last + 1
        elif _HASHES.fullmatch(_DASH.sub("", line).strip()):
            tell_removed("song", line)
            place += 1
        else:
            kept.append(_without_notes(line))
            place += 1
    return kept


def _ends_sung(line: str) -> bool:
    return len(_NOTES.findall(line)) > 1 and bool(_ENDS_SUNG.search(line))


def _last_sung(lines: list[str], first: int) -> int:
    """Where a song ends that began on a line: on the next one that ends with a note, else on this one."""
    for place in range(first + 1, len(lines)):
        if _STARTS_SUNG.match(lines[place]):
            break
        if _ENDS_SUNG.search(lines[place]):
            return place
    return first


def _without_notes(line: str) -> str:
    for found in _PAIRED_NOTES.findall(line):
        tell_removed("song", found)
    line = _PAIRED_NOTES.sub(" ", line)
    if found := _NOTES.findall(line):
        tell_removed("note sign", line, len(found))
    return " ".join(_NOTES.sub(" ", line).split())


def _without_descriptions(text: str, tell: bool = True) -> str:
    while True:
        found = _BRACKETS.findall(text)
        if not found:
            return text
        if tell:
            for what in found:
                tell_removed("description", what.strip())
        text = _BRACKETS.sub("", text)

"""Cues of SubRip and WebVTT: lines of times, and below each what is shown, to the next one."""

import re
from dataclasses import dataclass
from itertools import pairwise

from memofast.prepare.subtitles.cue import Cue
from memofast.prepare.text.markup import plain_lines
from memofast.prepare.text.text_log import tell_removed

_TIME = r"([-\u2212])?\s?(?:(\d+)\s?:\s?)?(\d+)\s?:\s?(\d+)(?:\s?[.,:]\s?(\d+))?"
_TIMES = re.compile(rf"^\s*{_TIME}\s*(?:-{{1,3}}>|--&gt;|\u2192)\s*{_TIME}(?!\d)(.*)$")
_ALMOST = re.compile(r"^\s*[-\u2212]?\d[^>]*--+>")
_NUMBER = re.compile(r"^\s*\d+\s*$")
_NOTE = re.compile(r"^(?:NOTE(?:\s|$)|STYLE\s*$|REGION\s*$)")


@dataclass(frozen=True)
class _Block:
    """lines: below a line of times, `number` of the file. start, end: seconds, None where they are no times."""

    number: int
    times: str
    start: float | None
    end: float | None
    lines: list[str]


def block_cues(text: str, webvtt: bool) -> list[Cue]:
    """Cues of a file's text as they stand there, those without words or duration left out.

    Indexes may be missing, hours too; fractions of seconds may not. An empty line ends no cue, but in WebVTT notes and
    the names of cues stand behind it. A cue that begins before 0 is given with its problem.
    """
    lines = text.split("\n")
    blocks = _blocks(lines)
    numbered = bool(blocks) and any(map(_NUMBER.match, filter(str.strip, lines[: blocks[0].number - 1])))
    cues = []
    for place, (block, following) in enumerate(pairwise([*blocks, None]), 2):
        shown = _shown(block.lines, webvtt, numbered, following is None, place)
        words = plain_lines("\n".join(shown))
        if words and (cue := _cue(block, words)):
            cues.append(cue)
    return cues


def _blocks(lines: list[str]) -> list[_Block]:
    found: list[_Block] = []
    for number, line in enumerate(lines, 1):
        times = _TIMES.match(line)
        if times and (times[5] or times[10]):
            found.append(_Block(number, line.strip(), _seconds(times.groups()[:5]), _seconds(times.groups()[5:10]), []))
        elif times or _ALMOST.match(line):
            found.append(_Block(number, line.strip(), None, None, []))
        elif found:
            found[-1].lines.append(line)
    return found


def _seconds(fields: tuple) -> float:
    sign, hours, minutes, seconds, fraction = fields
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    value = (whole * 1000 + int((fraction or "").ljust(3, "0")[:3])) / 1000
    return -value if sign else value


def _shown(lines: list[str], webvtt: bool, numbered: bool, last: bool, place: int) -> list[str]:
    """The lines of a cue without what belongs to the next one. Args: place: of the next cue in the file."""
    closed = not lines or not lines[-1].strip()  # by an empty line
    lines = list(lines)
    while lines and not lines[-1].strip():
        lines.pop()
    apart = len(lines) == 1 or (len(lines) > 1 and not lines[-2].strip())
    if lines and _NUMBER.match(lines[-1]):
        follows = int(lines[-1]) == place
        if last and numbered and apart and len(lines) > 1 and follows:
            tell_removed("index", lines.pop())  # of a cue that was cut off
        elif not last and ((numbered and (apart or follows)) or (not closed and (numbered or apart or follows))):
            lines.pop()
    elif webvtt and not last and not closed and len(lines) > 1 and not lines[-2]:
        lines.pop()  # the next cue's name
    return _without_notes(lines) if webvtt else lines


def _without_notes(lines: list[str]) -> list[str]:
    kept, note, free = [], [], False
    for line in [*lines, ""]:
        if note and not line:
            tell_removed("comment", " ".join(note))
            note = []
        elif note or (free and _NOTE.match(line)):
            note.append(line)
        else:
            kept.append(line)
        free = not line
    return kept


def _cue(block: _Block, words: str) -> Cue | None:
    where = f"line {block.number}, {block.times!r}"
    if block.start is None:
        tell_removed("cue without times", f"{where}: {words}")
        return None
    if block.start < 0 or block.end < 0:
        return Cue(block.start, block.end, words, f"bad times: {where} begins before 0; {words!r} is left out")
    if block.end <= block.start:
        tell_removed("cue without duration", f"{block.times} {words}")
        return None
    return Cue(block.start, block.end, words)

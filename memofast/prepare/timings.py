"""Who says what when: subtitles (.srt, .vtt) and word timings (GRID .align)."""

import re
from dataclasses import dataclass
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.encoding import read_text

SIDECARS = (".srt", ".vtt", ".align")
GRID_TICKS_PER_SECOND = 25_000  # time / 1000 is the frame number at 25 frames per second
_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?"
_ARROW = re.compile(rf"^\s*({_TIME})\s*-->\s*({_TIME})")
_MARKUP = re.compile(r"<[^>\n]*>|\{[^}\n]*\}")
_SPACE = re.compile(r"\s+")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&lrm;": "", "&rlm;": ""}


@dataclass(frozen=True)
class Cue:
    """One timed sentence; `start` and `end` in seconds, None where it spans the whole file."""

    start: float | None
    end: float | None
    text: str


def parse_seconds(value: str | float) -> float:
    """Seconds from a number or from `[hours:]minutes:seconds[,.]fraction`; raises ValueError on anything else."""
    if isinstance(value, int | float):
        return float(value)
    parts = value.strip().replace(",", ".").split(":")
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"{value!r} is not a time")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + float(part)
    return seconds


def clean_sentence(text: str) -> str:
    """The sentence without subtitle markup (tags, overrides, entities), white space folded."""
    text = _MARKUP.sub(" ", text.replace("\\N", " ").replace("\\n", " "))
    for entity, plain in _ENTITIES.items():
        text = text.replace(entity, plain)
    return _SPACE.sub(" ", text).strip()


def read_cues(path: Path) -> list[Cue]:
    """Cues of a sidecar file in time order; cues without text or without duration are left out.

    A subtitle cue is any line with an arrow between two times and the lines up to the next empty line; indexes may be missing.
    A GRID alignment is one cue over the whole file: its words without `sil` and `sp`. Raises MemofastError on a malformed alignment.
    """
    text = read_text(path)
    return _align_cues(path, text) if path.suffix.lower() == ".align" else _subtitle_cues(text)


def _align_cues(path: Path, text: str) -> list[Cue]:
    words = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit()):
            raise MemofastError(
                f"{path}, line {number}: expected `start end word`, found {line.strip()!r}; fix the line"
            )
        if fields[2] not in {"sil", "sp"}:
            words.append(fields[2])
    return [Cue(None, None, " ".join(words))] if words else []


def _subtitle_cues(text: str) -> list[Cue]:
    cues = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        found = _ARROW.match(line)
        if not found:
            continue
        start, end = parse_seconds(found[1]), parse_seconds(found[2])
        sentence = clean_sentence(" ".join(_cue_lines(lines, number + 1)))
        if sentence and end > start:
            cues.append(Cue(start, end, sentence))
    return sorted(cues, key=lambda cue: (cue.start, cue.end))


def _cue_lines(lines: list[str], first: int) -> list[str]:
    """Lines of the cue whose text begins at `first`; an index line right before the next arrow is not text."""
    taken = []
    for number in range(first, len(lines)):
        if not lines[number].strip() or _ARROW.match(lines[number]):
            break
        taken.append(lines[number])
    next_line = first + len(taken)
    if taken and next_line < len(lines) and _ARROW.match(lines[next_line]) and taken[-1].strip().isdigit():
        taken.pop()
    return taken

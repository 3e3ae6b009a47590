"""Who says what when: subtitles (.srt, .vtt, .ass) and word timings (GRID .align)."""

import re
from dataclasses import dataclass
from pathlib import Path

import pysubs2

from memofast.errors import MemofastError
from memofast.prepare.text.encoding import read_text

WORDS = ".align"
SIDECARS = (".srt", ".ass", ".ssa", ".vtt", WORDS)
_EMPTY_LINE = re.compile(r"\\N\s*\\N")  # as pysubs2 writes it; what follows is a WebVTT note or the next cue's name
_MARKUP = re.compile(r"<[^>\n]*>|\{[^}\n]*\}")
_SPACE = re.compile(r"\s+")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&lrm;": "", "&rlm;": ""}


@dataclass(frozen=True)
class Cue:
    """Timed text, lines apart by `\\n`; `start` and `end` in seconds, None where it spans the whole file."""

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
    """One line without subtitle markup (tags, overrides, entities), white space folded."""
    return " ".join(clean_lines(text).split("\n"))


def clean_lines(text: str) -> str:
    """Lines without subtitle markup, white space folded, empty ones left out."""
    text = _MARKUP.sub("", text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " "))
    for entity, plain in _ENTITIES.items():
        text = text.replace(entity, plain)
    lines = (_SPACE.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def read_cues(path: Path) -> list[Cue]:
    """Cues of a sidecar file in time order; cues without text or without duration are left out.

    Subtitles are read by pysubs2; text of .srt and .vtt ends at the first empty line, and indexes may be missing.
    A GRID alignment is one cue over the whole file: its words without `sil` and `sp`. Raises MemofastError on a
    malformed alignment.
    """
    text = read_text(path)
    return _align_cues(path, text) if path.suffix.lower() == WORDS else subtitle_cues(text)


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


def subtitle_cues(text: str) -> list[Cue]:
    """Cues of SubRip, WebVTT or Advanced SubStation Alpha, told apart by how the text begins; comments and drawings are
    none."""
    text = "\n".join(text.splitlines())
    begin = text.lstrip()
    kind = "vtt" if begin.startswith("WEBVTT") else "ass" if begin.startswith("[") else "srt"
    cues = []
    for event in pysubs2.SSAFile.from_string(text, format_=kind):
        if event.is_comment or event.is_drawing or event.end <= event.start:
            continue
        lines = clean_lines(event.text if kind == "ass" else _EMPTY_LINE.split(event.text)[0])
        if lines:
            cues.append(Cue(event.start / 1000, event.end / 1000, lines))
    return sorted(cues, key=lambda cue: (cue.start, cue.end))

"""Who says what when: subtitles (.srt, .vtt, .ass) and word timings (GRID .align)."""

import re
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.subtitles.blocks import block_cues
from memofast.prepare.subtitles.cue import Cue
from memofast.prepare.subtitles.repeats import without_repeats
from memofast.prepare.subtitles.substation import substation_cues
from memofast.prepare.text.encoding import read_text
from memofast.prepare.text.markup import plain_lines

WORDS = ".align"
SIDECARS = (".srt", ".ass", ".ssa", ".vtt", WORDS)
_LINE_ENDS = re.compile(r"\r+\n|\r")  # of Windows, of old Macs, and of files converted twice


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
    """One line without mark-up (tags, codes, entities) and invisible characters, white space folded: the words of a
    table stay as they are."""
    return " ".join(plain_lines(text, "table").split("\n"))


def read_cues(path: Path) -> list[Cue]:
    """Cues of a sidecar file in time order; cues without text or without duration are left out, words that are shown
    again too.

    A GRID alignment is one cue over the whole file: its words without `sil` and `sp`. Raises MemofastError on a
    malformed alignment.
    """
    text = read_text(path)
    return _align_cues(path, text) if path.suffix.lower() == WORDS else subtitle_cues(text)


def _align_cues(path: Path, text: str) -> list[Cue]:
    words = []
    for number, line in enumerate(text.split("\n"), 1):
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
    """Cues of SubRip, WebVTT or Advanced SubStation Alpha, told apart by how the text begins; comments, drawings and
    signs are none."""
    text = _LINE_ENDS.sub("\n", text)
    begin = text.lstrip("\ufeff \t\n")
    if begin.startswith("["):
        return without_repeats(substation_cues(text))
    return without_repeats(block_cues(text, begin.startswith("WEBVTT")))

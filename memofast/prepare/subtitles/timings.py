"""Who says what when: subtitles (.srt, .vtt, .ass, .sbv, .sub) and word timings (GRID .align)."""

import re
from pathlib import Path

import pysubs2

from memofast.errors import MemofastError
from memofast.prepare.subtitles.blocks import block_cues
from memofast.prepare.subtitles.cue import Cue
from memofast.prepare.subtitles.repeats import without_repeats
from memofast.prepare.subtitles.substation import substation_cues
from memofast.prepare.text.encoding import read_text
from memofast.prepare.text.markup import plain_lines

WORDS = ".align"
SIDECARS = (".srt", ".ass", ".ssa", ".vtt", ".sbv", ".sub", WORDS)
_LINE_ENDS = re.compile(r"\r+\n|\r")  # of Windows, of old Macs, and of files converted twice
_WHOLE = re.compile(r"\d+")
_SECONDS = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
_LONGEST = 1e7  # seconds, 116 days; a larger number is no place in a film
_SBV_TIMES = re.compile(r"^\s*(\d+:\d\d:\d\d\.\d+),(\d+:\d\d:\d\d\.\d+)\s*$", re.M)
_FRAMES = re.compile(r"\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}(.*)")


def parse_seconds(value: str | float) -> float:
    """Seconds from a number or from `[hours:]minutes:seconds[,.]fraction`; raises ValueError on anything else, as on
    signs, NaN and infinity."""
    parts = str(value).strip().replace(",", ".").split(":")
    if len(parts) > 3 or not all(map(_WHOLE.fullmatch, parts[:-1])) or not _SECONDS.fullmatch(parts[-1]):
        raise ValueError(f"{value!r} is not a time")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + float(part)
    if seconds > _LONGEST:
        raise ValueError(f"{value!r} is longer than any film")
    return seconds


def clean_sentence(text: str) -> str:
    """One line without mark-up (tags, codes, entities) and invisible characters, white space folded: the words of a
    table stay as they are."""
    return " ".join(plain_lines(text, "table").split("\n"))


def read_cues(path: Path) -> list[Cue]:
    """Cues of a sidecar file in time order; cues without text or without duration are left out, words that are shown
    again too.

    MicroDVD (.sub) counts frames, whose rate its first line must name.
    A GRID alignment is one cue over the whole file: its words without `sil` and `sp`. Raises MemofastError on a
    malformed alignment and on frames without their rate.
    """
    text, kind = _LINE_ENDS.sub("\n", read_text(path)), path.suffix.lower()
    if kind == WORDS:
        return _align_cues(path, text)
    if kind == ".sub":
        text = _srt_of_frames(path, text)
    if kind == ".sbv":
        text = _SBV_TIMES.sub(r"\1 --> \2", text).replace("[br]", "\n")
    return subtitle_cues(text)


def _srt_of_frames(path: Path, text: str) -> str:
    """MicroDVD, `{first frame}{last frame}words|words`, as SubRip. Raises: `MemofastError` where its first line names
    no frame rate, and for other files of that suffix."""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            lines.append(_FRAMES.match(line))
            if lines[-1] is None:
                raise MemofastError(
                    f"{path}, line {number} is no MicroDVD, {{25}}{{100}}words (VobSub holds pictures); make it .srt"
                )
    declared = ""
    if lines and lines[0][1] == lines[0][2] and int(lines[0][1]) < 2:
        declared = lines[0][3].strip().replace(",", ".")
    rate = float(declared) if _SECONDS.fullmatch(declared) else 0.0
    if not 1 <= rate <= 1000:
        raise MemofastError(
            f"{path} counts frames and names no frame rate; begin it with {{1}}{{1}}25, the film's frames a second"
        )
    read = pysubs2.SSAFile.from_string("\n".join(line[0] for line in lines[1:]), format_="microdvd", fps=rate)
    return read.to_string("srt")


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

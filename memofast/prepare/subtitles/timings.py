"""Who says what when: subtitles (.srt, .vtt, .ass, .sbv, .sub) and word timings (GRID .align)."""

import re
from dataclasses import dataclass
from pathlib import Path

import pysubs2

from memofast.errors import MemofastError
from memofast.prepare.text.encoding import read_text

WORDS = ".align"
SIDECARS = (".srt", ".ass", ".ssa", ".vtt", ".sbv", ".sub", WORDS)
_EMPTY_LINE = re.compile(r"\\N\s*\\N")  # as pysubs2 writes it; what follows is a WebVTT note or the next cue's name
_MARKUP = re.compile(r"<[^>\n]*>|\{[^}\n]*\}")
_SPACE = re.compile(r"\s+")
_LINE_END = re.compile(r"\r\n|\r|\n")
_WHOLE = re.compile(r"\d+")
_SECONDS = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
_LONGEST = 1e7  # seconds, 116 days; a larger number is no place in a film
_SBV_TIMES = re.compile(r"^\s*(\d+:\d\d:\d\d\.\d+),(\d+:\d\d:\d\d\.\d+)\s*$", re.M)
_FRAMES = re.compile(r"\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}(.*)")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&lrm;": "", "&rlm;": ""}


@dataclass(frozen=True)
class Cue:
    """Timed text, lines apart by `\\n`; `start` and `end` in seconds, None where it spans the whole file."""

    start: float | None
    end: float | None
    text: str


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
    MicroDVD (.sub) counts frames, whose rate its first line must name.
    A GRID alignment is one cue over the whole file: its words without `sil` and `sp`. Raises MemofastError on a
    malformed alignment and on frames without their rate.
    """
    text, kind = read_text(path), path.suffix.lower()
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
    for number, line in enumerate(_LINE_END.split(text), 1):
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
    for number, line in enumerate(_LINE_END.split(text), 1):
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

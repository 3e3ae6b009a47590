"""What became of every clip: counted by reason, listed by id, in `report.json` and as a table."""

import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, FiniteFloat
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memofast.errors import MemofastError
from memofast.files import as_json, parse_json, write_json
from memofast.prepare.faces.speaking import Scores
from memofast.prepare.media.decoding import Span
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.folders import LEFT_OUT
from memofast.prepare.text.text_log import RULES
from memofast.schemas import Count, FileName, Schema, fault_of

REASONS = {
    "missing file": "the media file is not there",
    "pointer": "a Git LFS pointer in place of the media file; git lfs pull brings it",
    "unreadable": "the media file does not open or decode",
    "crashed": "decoding ended the process",
    "failed": "an extractor raised an error",
    "bad timings": "the sidecar is malformed or holds no words",
    "bad times": "start and end are not times",
    "bad row": "the row has more cells than its table's header",
    "odd name": "dropped: numbered, its name is longer than 511 bytes; rename the file",
    "too brief": "the sentence lasts less than --min-seconds",
    "subtitles moved": "the film's subtitles lay beside its speech; their times were corrected",
    "doubtful subtitles": "the film's subtitles do not lie where somebody speaks; look at it",
    "no speech": "dropped: somebody speaks in less than --min-speech of it",
    "damaged": "the file breaks off; what could be decoded is used",
    "joined": "recordings in one file, each with times of its own: the later ones follow the first",
    "beyond the end": "the film ends before the sentence does; what there is of it is used",
    "uneven": "picture and sound are of different length",
    "cut": "longer than --max-seconds; the rest is left out",
    "longer than its words": "the file lasts far longer than its sentence would take; look at it",
    "too short": "less sound than one row needs",
    "no picture": "no frame in this piece",
    "no face": "no face found in any frame",
    "no main face": "nobody is seen in a fifth of the frames",
    "nobody visible speaks": (
        "no visible mouth moves while somebody speaks; kept without a face (--speaker most-seen takes one)"
    ),
    "no sound track": "the file has no sound",
    "silent": "the sound never exceeds -60 dB",
    "words cut": "the sentence is longer than 100 words; the rest of it is left out",
    "out of phase": "the channels of the sound cancel each other; the loudest one is used",
    "clipped": "samples of the sound lie beyond 16 bits; the largest that these hold stands in their place",
    "over full scale": "the sound was written on another scale; brought to a peak of 1",
    "sound mended": "samples of the sound are no numbers; they are silent now",
    "no text": "no words; kept for its faces or speech",
    "nothing usable": "dropped: neither words nor faces nor speech",
}

# may be mended: such clips are tried again
FAILURES = {"missing file", "pointer", "unreadable", "crashed", "failed", "damaged"}


@dataclass(frozen=True)
class Problem:
    """reason: a key of REASONS. detail: which file, in words."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Source:
    """Where a clip came from, so that it can be looked at again.

    picture, sound: absolute paths, None for none. start, end: the piece of them that was used, in seconds from their
    start, after subtitles were moved; end None: to their end. seconds: length of what was decoded, None where nothing
    was. text: what is said. streams: which tracks of the files were read, where that is not plain.
    """

    picture: str | None = None
    sound: str | None = None
    start: float = 0.0
    end: float | None = None
    seconds: float | None = None
    text: str | None = None
    streams: str = ""

    @classmethod
    def of(cls, clip: Clip, span: Span | None = None, seconds: float | None = None, streams: str = "") -> "Source":
        """Source of a clip; the span, where one was decoded, stands above the clip's own times."""
        picture, sound = (path and str(path.absolute()) for path in (clip.picture, clip.sound))
        start, end = (span.start, span.end) if span else (clip.start or 0.0, clip.end)
        return cls(picture, sound, start, None if end == math.inf else end, seconds, clip.text, streams)


@dataclass
class Outcome:
    """What one clip became. kept: it is in the corpus; rows per modality; spoken, speaker: see `Extracted`; source:
    None in journals without it."""

    id: str
    kept: bool
    text: int = 0
    visual: int = 0
    speech: int = 0
    problems: list[Problem] = field(default_factory=list)
    spoken: float | None = None
    speaker: Scores | None = None
    source: Source | None = None

    def as_json(self) -> dict:
        problems = [[problem.reason, problem.detail] for problem in self.problems]
        rows = [self.text, self.visual, self.speech]
        parts = {"speaker": self.speaker, "source": self.source}
        return {"id": self.id, "kept": self.kept, "rows": rows, "problems": problems, "spoken": self.spoken} | {
            name: asdict(part) for name, part in parts.items() if part
        }

    @classmethod
    def from_json(cls, entry: dict) -> "Outcome":
        problems = [Problem(*pair) for pair in entry["problems"]]
        speaker = Scores(**entry["speaker"]) if "speaker" in entry else None
        source = Source(**entry["source"]) if "source" in entry else None
        return cls(entry["id"], entry["kept"], *entry["rows"], problems, entry["spoken"], speaker, source)


class _Scores(Schema):
    model_config = ConfigDict(extra="forbid")

    moves: Count
    matches: Count
    correlation: float | None


class _Source(Schema):
    model_config = ConfigDict(extra="forbid")

    picture: FileName | None = None
    sound: FileName | None = None
    start: FiniteFloat = 0.0
    end: FiniteFloat | None = None
    seconds: FiniteFloat | None = None
    text: str | None = None
    streams: str = ""


class _Line(Schema):
    """One line of a journal, see `Outcome.as_json`."""

    id: FileName
    kept: bool
    rows: Annotated[tuple[Count, Count, Count], Field(strict=False)]
    problems: list[Annotated[tuple[str, str], Field(strict=False)]]
    spoken: float | None
    speaker: _Scores | None = None
    source: _Source | None = None


class Journal:
    """Outcomes on disk, one JSON line each; the last line of an id counts. A last line that a kill tore is cut off by
    the next flush."""

    def __init__(self, path: Path):
        """Raises: `MemofastError` for a file that cannot be read and a line that is damaged."""
        self._path = path
        self.outcomes: dict[str, Outcome] = {}
        self._waiting: list[str] = []
        data = self._read() if path.is_file() else b""
        *lines, last = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            if fault := self._take(line):
                raise MemofastError(
                    f"line {number} of {path} is damaged ({fault}): take the line out, its clip is prepared again"
                )
        self._torn = bool(self._take(last))
        self._end = len(data) - (len(last) if self._torn else 0)
        if last and not self._torn:
            self._waiting.append("\n")

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise MemofastError(f"{self._path} cannot be read ({error.strerror}): restore it") from error

    def _take(self, line: bytes) -> str | None:
        """What is wrong with a line; None where nothing is, or nothing stands in it."""
        if not line:
            return None
        try:
            entry = parse_json(line.decode())
            fault = fault_of(entry, _Line)
        except ValueError as error:
            return str(error)
        if not fault:
            self.outcomes[entry["id"]] = Outcome.from_json(entry)
        return fault

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.id] = outcome
        self._waiting.append(as_json(outcome.as_json()) + "\n")

    def flush(self) -> None:
        """Bring the outcomes added so far to the disk; raises MemofastError where it does not take them."""
        data = "".join(self._waiting).encode()
        try:
            with open(self._path, "ab") as file:
                if self._torn:
                    file.truncate(self._end)
                self._torn = bool(data)  # until the disk has taken all of it
                file.write(data)
        except OSError as error:
            raise MemofastError(
                f"{self._path} cannot be written ({error.strerror}): free space and run again to go on"
            ) from error
        self._end, self._torn, self._waiting = self._end + len(data), False, []


def write_report(path: Path, outcomes: list[Outcome], splits: dict[str, int], facts: dict) -> dict:
    """Write `report.json` and return it: clips kept and dropped, rows, per reason the count and every clip with its
    detail, and per file which of several tracks were read. facts: further entries, as `left_out` and `notes` of the
    sources."""
    listed: dict[str, list] = defaultdict(list)
    for outcome in outcomes:
        for problem in outcome.problems:
            listed[problem.reason].append({"id": outcome.id, "detail": problem.detail})
    kept = [outcome for outcome in outcomes if outcome.kept]
    report = {
        **facts,
        "clips": len(outcomes),
        "kept": len(kept),
        "with": {m: sum(getattr(o, m) > 0 for o in kept) for m in ("text", "visual", "speech")},
        "rows": {m: sum(getattr(o, m) for o in kept) for m in ("text", "visual", "speech")},
        "splits": splits,
        "spoken": {o.id: round(o.spoken, 3) for o in kept if o.spoken is not None},
        "speaker": {o.id: asdict(o.speaker) for o in kept if o.speaker},
        "streams": {
            o.source.picture or o.source.sound: o.source.streams for o in outcomes if o.source and o.source.streams
        },
        "problems": {
            reason: {"count": len(listed[reason]), "clips": listed[reason]} for reason in REASONS if reason in listed
        },
    }
    write_json(path, report)
    return report


def print_report(report: dict, console: Console) -> None:
    """Print the counts of a report as a table."""
    counts = Table(title=f"{report['kept']} of {report['clips']} clips kept", title_justify="left")
    counts.add_column("modality")
    counts.add_column("clips", justify="right")
    counts.add_column("rows", justify="right")
    for modality, number in report["with"].items():
        counts.add_row(modality, str(number), str(report["rows"][modality]))
    console.print(counts)
    if report["splits"]:
        console.print("splits: " + ", ".join(f"{name} {count}" for name, count in report["splits"].items()))
    if missed := report.get("left_out"):
        files = Table(title="files and rows left out", title_justify="left")
        files.add_column("reason")
        files.add_column("files", justify="right")
        files.add_column("meaning")
        for reason, listed in missed.items():
            files.add_row(reason, str(listed["count"]), LEFT_OUT[reason])
        console.print(files)
    if streams := report["streams"]:
        console.print(f"streams: {len(streams)} files have several tracks or odd ones; report.json says what was read")
    if report["problems"]:
        problems = Table(title="problems", title_justify="left")
        problems.add_column("reason")
        problems.add_column("clips", justify="right")
        problems.add_column("meaning")
        for reason, listed in report["problems"].items():
            problems.add_row(reason, str(listed["count"]), REASONS[reason])
        console.print(problems)
    print_text_log(report.get("text") or {}, console)


def print_text_log(text: dict, console: Console) -> None:
    """Print what was taken out of texts, by rule with an example, and files that are not UTF-8. Args: text: that part
    of a report."""
    if text.get("removed"):
        removed = Table(title="taken out of texts", title_justify="left")
        for name in ("rule", "times", "meaning", "example"):
            removed.add_column(name, justify="right" if name == "times" else "left")
        for rule, found in text["removed"].items():
            removed.add_row(rule, str(found["count"]), RULES[rule], escape(found["samples"][0]["text"]))
        console.print(removed)
    for file, found in text.get("encodings", {}).items():
        if found["doubtful"]:
            console.print(
                f"warning: {file} is read as {found['encoding']}, which is a guess ({found['detail']}); look at its "
                "text, and save it as UTF-8 where that is wrong",
                markup=False,
            )
    if sure := Counter(found["encoding"] for found in text.get("encodings", {}).values() if not found["doubtful"]):
        counts = ", ".join(f"{encoding} {count}" for encoding, count in sure.most_common())
        console.print(f"files in other encodings than UTF-8: {counts}")


def print_profile(profile: dict, console: Console) -> None:
    """Print where the time of a run went: seconds over all workers, their share, and how fast that is beside the
    media."""
    total = sum(profile["seconds"].values())
    table = Table(title="where the time went, all workers together", title_justify="left")
    for name in ("part", "seconds", "share", "times real time"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part, seconds in sorted(profile["seconds"].items(), key=lambda item: -item[1]):
        speed = f"{profile['media'] / seconds:,.0f}" if seconds > 1e-3 else ""
        table.add_row(part, f"{seconds:.2f}", f"{seconds / max(total, 1e-9):.1%}", speed)
    console.print(table)
    media, wall = profile["media"], profile["wall"]
    console.print(f"{media:.0f} s of media in {wall:.1f} s: {media / max(wall, 1e-9):.1f} times real time")

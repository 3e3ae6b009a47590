"""What there is to prepare: folders of media with sidecar timings, and tables, as one list of clips."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.sources.table import Columns, read_table
from memofast.prepare.subtitles.sentences import SentenceRules, sentences_of
from memofast.prepare.subtitles.streams import CARRIERS, stream_cues
from memofast.prepare.subtitles.timings import SIDECARS, WORDS, Cue, clean_sentence, parse_seconds, read_cues

VIDEO = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".ts", ".wmv", ".3gp", ".ogv"}
AUDIO = {".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma"}


@dataclass(frozen=True)
class Clip:
    """One sample to be: where its picture and sound lie (None: nowhere), its piece of them in seconds, what is said,
    its label.

    folder: the folder below the source it came from. split: the split named by its source or column.
    group: the dialogue, speaker or the like that a table names. subtitled: its times are those of
    subtitles. problem: known before decoding. emotions: labels that the sample shares in equally. value: its number, as
    sentiment.
    """

    id: str
    picture: Path | None = None
    sound: Path | None = None
    start: float | None = None
    end: float | None = None
    text: str | None = None
    label: str | None = None
    folder: str = ""
    split: str | None = None
    group: str | None = None
    subtitled: bool = False
    problem: str | None = None
    emotions: tuple[str, ...] = ()
    value: float | None = None


@dataclass(frozen=True)
class SourceOptions:
    """columns: which table columns are read. media_root: where a table's files lie, by default beside the table.

    label_pattern: regular expression whose first group, found in a clip's id, is its label. split_column: table column
    that names the split. subtitles: `auto` (sidecars, else streams inside the file), `sidecar` or `none`; language: of
    a stream, three letters.
    """

    columns: Columns = field(default_factory=Columns)
    media_root: Path | None = None
    label_pattern: str | None = None
    split_column: str | None = None
    subtitles: str = "auto"
    language: str | None = None
    sentences: SentenceRules = field(default_factory=SentenceRules)


def read_sources(sources: Iterable[str], options: SourceOptions) -> list[Clip]:
    """All clips of folders, tables and single files, each given as `PATH` or `SPLIT=PATH`, sorted by id.

    With several sources ids begin with the name of theirs where they would clash. Raises MemofastError when a source is
    missing or empty, or when an id occurs twice.
    """
    pattern = _compile(options.label_pattern)
    per_source: list[tuple[str, list[Clip]]] = []
    for given in sources:
        split, path = _split_and_path(given)
        clips = [replace(clip, split=split or clip.split) for clip in _read_source(path, options)]
        if not clips:
            raise MemofastError(
                f"{path} holds nothing to prepare; give a folder of media, a media file or a table with rows"
            )
        per_source.append((path.stem if path.is_file() else path.name, clips))
    counts = Counter(clip.id for _, clips in per_source for clip in clips)
    clips = []
    for name, part in per_source:
        clash = len(per_source) > 1 and any(counts[clip.id] > 1 for clip in part)
        clips += [replace(clip, id=f"{name}/{clip.id}") if clash else clip for clip in part]
    refuse_twice(clips)
    if pattern:
        clips = [_label_from_id(clip, pattern) for clip in clips]
    return sorted(clips, key=lambda clip: clip.id)


def _compile(pattern: str | None) -> re.Pattern | None:
    try:
        compiled = re.compile(pattern) if pattern else None
    except re.error as error:
        raise MemofastError(f"--label-pattern {pattern!r} is not a regular expression ({error})") from error
    if compiled and compiled.groups < 1:
        raise MemofastError(f"--label-pattern {pattern!r} has no group; put the label's part in parentheses")
    return compiled


def _split_and_path(given: str) -> tuple[str | None, Path]:
    split, equals, path = given.partition("=")
    if equals and not Path(given).exists() and re.fullmatch(r"\w+", split):
        return split, Path(path)
    return None, Path(given)


def _read_source(path: Path, options: SourceOptions) -> list[Clip]:
    if path.is_dir():
        return _read_folder(path, options)
    if not path.exists():
        raise MemofastError(f"no file or folder {path}; check the path")
    if path.suffix.lower() in VIDEO | AUDIO:
        return _clips_of_stem(path.stem, [path], path.parent, options)
    return _read_rows(path, options)


def _read_folder(folder: Path, options: SourceOptions) -> list[Clip]:
    """Clips of every media file below a folder; files that share all but their suffix belong together."""
    by_stem: dict[Path, list[Path]] = {}
    sidecars: dict[Path, Path] = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(root, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix.lower() in VIDEO | AUDIO:
                by_stem.setdefault(path.with_suffix(""), []).append(path)
            elif path.suffix.lower() in SIDECARS:
                sidecars.setdefault(path.with_suffix(""), path)
    clips: list[Clip] = []
    for stem, paths in by_stem.items():
        clips += _clips_of_stem(stem.relative_to(folder).as_posix(), paths, folder, options)
    if clips:
        clips += [_alone(path, folder) for stem, path in sidecars.items() if stem not in by_stem]
    return clips


def _alone(sidecar: Path, folder: Path) -> Clip:
    """Subtitles whose film is not there, to be told in the report."""
    name = sidecar.relative_to(folder)
    return Clip(name.as_posix(), problem=f"missing file: no film beside {sidecar}")


def _clips_of_stem(id: str, paths: list[Path], folder: Path, options: SourceOptions) -> list[Clip]:
    """Clips of the media files that share a stem: a video with its sound beside it is one, two videos are two."""
    videos = [path for path in paths if path.suffix.lower() in VIDEO]
    sounds = [path for path in paths if path.suffix.lower() in AUDIO]
    if len(videos) <= 1 and len(sounds) <= 1:
        picture = videos[0] if videos else None
        return _with_timings(Clip(id, picture, sounds[0] if sounds else picture), paths[0], folder, options)
    clips = []
    for path in paths:
        named = Clip(f"{id}{path.suffix}", path if path in videos else None, path)
        clips += _with_timings(named, path, folder, options)
    return clips


def _with_timings(clip: Clip, media: Path, folder: Path, options: SourceOptions) -> list[Clip]:
    """The clip, or one clip per sentence of its subtitles."""
    parent = media.parent.relative_to(folder).as_posix()
    clip = replace(clip, folder="" if parent == "." else parent)
    try:
        place, cues = _cues_of(media, options)
    except MemofastError as error:
        return [replace(clip, problem=f"bad timings: {error}")]
    if place is None:
        return [clip]
    if len(cues) == 1 and cues[0].start is None:
        return [replace(clip, text=cues[0].text)]
    sentences, brief = sentences_of(cues, options.sentences)
    if not (sentences or brief):
        return [replace(clip, problem=f"bad timings: {place} holds no cue with words")]
    return [replace(part, subtitled=True) for part in sentence_clips(clip, sentences, brief)]


def sentence_clips(clip: Clip, sentences: list[Cue], brief: list[Cue]) -> list[Clip]:
    """A clip for each sentence of a film, numbered in order of time; those that are too short carry that as their
    problem."""
    digits = max(4, len(str(len(sentences) + len(brief))))
    clips = []
    for number, cue in enumerate(sorted(sentences + brief, key=lambda cue: (cue.start, cue.end)), 1):
        part = replace(clip, id=f"{clip.id}_{number:0{digits}}", start=cue.start, end=cue.end)
        if cue in brief:
            part = replace(part, problem=cue.problem or f"too brief: {cue.end - cue.start:.2f} s, {cue.text!r}")
        else:
            part = replace(part, text=cue.text)
        clips.append(part)
    return clips


def _cues_of(media: Path, options: SourceOptions) -> tuple[Path | None, list[Cue]]:
    """Where the timings of a file lie and what they are: the first sidecar beside it, or its own subtitle stream."""
    sidecars = (media.with_suffix(suffix) for suffix in SIDECARS)
    sidecar = next((path for path in sidecars if path.is_file()), None)
    if sidecar and (options.subtitles != "none" or sidecar.suffix == WORDS):
        return sidecar, read_cues(sidecar)
    if options.subtitles == "auto" and media.suffix.lower() in CARRIERS:
        cues = stream_cues(media, options.language)
        return (media if cues else None), cues
    return None, []


def _read_rows(path: Path, options: SourceOptions) -> list[Clip]:
    root = options.media_root or path.parent
    rows = read_table(path, options.columns, options.split_column)
    digits = max(4, len(str(len(rows))))
    clips = []
    for number, row in enumerate(rows, 1):
        clip = Clip(
            row.get("id") or f"{path.stem}_{number:0{digits}}",
            label=row.get("label"),
            split=row.get("split"),
            group=row.get("group"),
            emotions=_emotions(row.get("emotions", "")),
            value=_number(path, row.get("value", "")),
        )
        if (text := row.get("text")) is not None:
            clip = replace(clip, text=clean_sentence(text))
        if file := row.get("file"):
            clip = _with_media(clip, root / file, row)
        elif "file" in row:
            clip = replace(clip, problem="missing file: the table's cell is empty")
        clips.append(clip)
    return clips


def _emotions(cell: str) -> tuple[str, ...]:
    """Labels of a cell: a JSON list, or names between `|` or `;`; each once."""
    try:
        names = json.loads(cell) if cell.startswith("[") else re.split(r"[|;]", cell)
    except ValueError as error:
        raise MemofastError(f"emotions {cell!r} are no JSON list ({error}); give names between | or ;") from error
    return tuple(dict.fromkeys(name for part in names if (name := str(part).strip())))


def _number(path: Path, cell: str) -> float | None:
    """The number of a cell, None for an empty one."""
    try:
        number = float(cell) if cell else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise MemofastError(f"{path}: value {cell!r} is no number; leave the cell empty where it is unknown")
    return number


def _with_media(clip: Clip, media: Path, row: dict[str, str]) -> Clip:
    if not media.is_file():
        return replace(clip, problem=f"missing file: {media}")
    picture = None if media.suffix.lower() in AUDIO else media
    clip = replace(clip, picture=picture, sound=media, folder=Path(row["file"]).parent.as_posix())
    try:
        start = parse_seconds(row["start"]) if row.get("start") else None
        end = parse_seconds(row["end"]) if row.get("end") else None
    except ValueError as error:
        return replace(clip, problem=f"bad times: {error}")
    if end is not None and end <= (start or 0.0):
        return replace(clip, problem=f"bad times: end {end} is not after start {start or 0.0}")
    return replace(clip, start=start, end=end)


def _label_from_id(clip: Clip, pattern: re.Pattern) -> Clip:
    found = pattern.search(clip.id)
    return replace(clip, label=found[1]) if found else clip


def refuse_twice(clips: list[Clip]) -> None:
    """Raises `MemofastError` where two clips have one id."""
    twice = [id for id, count in Counter(clip.id for clip in clips).items() if count > 1]
    if twice:
        raise MemofastError(
            f"id {twice[0]!r} occurs more than once ({len(twice)} such ids); make ids unique, e.g. id={{a}}_{{b}}"
        )

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
from memofast.prepare.sources.folders import AUDIO, VIDEO, LeftOut, counted, is_regular, left_out, one_line, walk
from memofast.prepare.sources.sidecars import Sidecar, choose, pair
from memofast.prepare.sources.table import TABLES, Columns, names_any, read_table
from memofast.prepare.sources.table_dialogues import apart, name_in, positions_of
from memofast.prepare.subtitles.sentences import SentenceRules, sentences_of
from memofast.prepare.subtitles.streams import CARRIERS, stream_cues
from memofast.prepare.subtitles.timings import SIDECARS, Cue, parse_seconds
from memofast.store.writer import id_fault

_OTHERS = {
    "subtitles not read": {".smi", ".sami", ".ttml", ".dfxp", ".lrc", ".idx", ".sup", ".stl", ".scc", ".usf", ".mpl"},
    "table": TABLES - {".txt"},
}


@dataclass(frozen=True)
class Clip:
    """One sample to be: where its picture and sound lie (None: nowhere), its piece of them in seconds, what is said,
    its label.

    folder: the folder below the source it came from. split: the split named by its source or column.
    group: what a table says of what belongs together. subtitled: its times are those of subtitles. problem: known
    before decoding. emotions: labels that the sample shares in equally. value: its number, as sentiment. dialogue,
    position, speaker: where a table says that it is said, and who says it; by_itself: it names dialogues, and none for
    this one.
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
    dialogue: str | None = None
    position: int | None = None
    speaker: str | None = None
    by_itself: bool = False


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


@dataclass
class Found:
    """clips: sorted by id. left_out: files and rows that no clip comes of. notes: what was chosen or is odd, a line
    each. subtitles: name of a film -> file of the sentences that were read, itself where they lie inside."""

    clips: list[Clip] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    subtitles: dict[str, str] = field(default_factory=dict)


def read_sources(sources: Iterable[str], options: SourceOptions) -> list[Clip]:
    """The clips alone of what `find_clips` finds."""
    return find_clips(sources, options).clips


def find_clips(sources: Iterable[str], options: SourceOptions) -> Found:
    """All clips of folders, tables and single files, each given as `PATH` or `SPLIT=PATH`, and every file of a folder
    that is not used.

    With several sources ids and dialogues begin with the name of theirs where they would clash. Raises MemofastError
    when a source is missing or empty, when an id occurs twice, and for columns where no source is a table.
    """
    pattern = _compile(options.label_pattern)
    sources, found = list(sources), Found()
    if names_any(options.columns) and not any(_is_table(_split_and_path(given)[1]) for given in sources):
        raise MemofastError(f"--column is for tables, and {one_line(sources[0])} is none; leave it out")
    per_source: list[tuple[str, list[Clip]]] = []
    for given in sources:
        split, path = _split_and_path(given)
        missed = len(found.left_out)
        clips = [replace(clip, split=split or clip.split) for clip in _read_source(path, options, found)]
        clips = [clip for clip in clips if _can_be_kept(clip, path, found)]
        if not clips:
            why = f" ({told} left out)" if (told := counted(found.left_out[missed:])) else ""
            raise MemofastError(
                f"{one_line(str(path))} holds nothing to prepare{why}; give a folder of media, a media file or a table "
                "with rows"
            )
        per_source.append((path.stem if path.is_file() else path.name, clips))
    counts = Counter(clip.id for _, clips in per_source for clip in clips)
    renamed, notes = apart([(name, {clip.dialogue for clip in part if clip.dialogue}) for name, part in per_source])
    found.notes += notes
    clips = []
    for (name, part), of in zip(per_source, renamed, strict=True):
        clash = len(per_source) > 1 and any(counts[clip.id] > 1 for clip in part)
        part = [replace(clip, dialogue=of.get(clip.dialogue, clip.dialogue)) for clip in part]
        part = [replace(clip, id=f"{name}/{clip.id}") if clash else clip for clip in part]
        clips += [clip for clip in part if _can_be_kept(clip, Path(name), found)] if clash else part
    refuse_twice(clips)
    if pattern:
        clips = _labels_from_ids(clips, pattern, found)
    found.clips = sorted(clips, key=lambda clip: clip.id)
    return found


def _can_be_kept(clip: Clip, source: Path, found: Found) -> bool:
    """Whether a store takes the clip's id and words; it is noted where not."""
    file = clip.picture or clip.sound
    if fault := id_fault(clip.id):
        found.left_out.append(left_out(file or source, "odd name", f"{clip.id}: {fault}" if not file else fault))
        return False
    try:
        named = clip.label, clip.split, clip.group, clip.dialogue, clip.speaker, *clip.emotions
        "\n".join(filter(None, (clip.text, *named))).encode()
    except UnicodeEncodeError:
        found.left_out.append(left_out(source, "odd characters", clip.id))
        return False
    return True


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
    if equals and not os.path.exists(given) and re.fullmatch(r"\w+", split):
        return split, Path(path)
    return None, Path(given)


def _read_source(path: Path, options: SourceOptions, found: Found) -> list[Clip]:
    if os.path.isdir(path):
        return _read_folder(path, options, found)
    if not os.path.exists(path):  # of a name that no file can have too
        raise MemofastError(f"no file or folder {one_line(str(path))}; check the path")
    if not is_regular(path):
        raise MemofastError(f"{one_line(str(path))} is no file but a FIFO, socket or device; give a file or folder")
    if not _is_table(path):
        return _clips_of_stem(path.stem, [path], _sidecars_of(path), path.parent, options, found)
    return _read_rows(path, options, found)


def _is_table(path: Path) -> bool:
    return not os.path.isdir(path) and path.suffix.lower() not in VIDEO | AUDIO


def _sidecars_of(media: Path) -> list[Sidecar]:
    """Those of one file, which may stand beside other films."""
    beside = sorted(media.parent.iterdir())
    stems = {path.with_suffix("") for path in beside if path.suffix.lower() in VIDEO | AUDIO}
    sidecars = [path for path in beside if path.suffix.lower() in SIDECARS and is_regular(path)]
    return pair(sidecars, stems)[0].get(media.with_suffix(""), [])


def _read_folder(folder: Path, options: SourceOptions, found: Found) -> list[Clip]:
    """Clips of every media file below a folder; files that share all but their suffix belong together."""
    by_stem: dict[Path, list[Path]] = {}
    sidecars: list[Path] = []
    files, missed = walk(folder, VIDEO | AUDIO | set(SIDECARS))
    found.left_out += missed
    for path in files:
        suffix = path.suffix.lower()
        if suffix in VIDEO | AUDIO:
            by_stem.setdefault(path.with_suffix(""), []).append(path)
        elif suffix in SIDECARS:
            sidecars.append(path)
        else:
            kind = next((kind for kind, known in _OTHERS.items() if suffix in known), "unknown suffix")
            found.left_out.append(left_out(path, kind, suffix or "none"))
    sidecars_of, alone = pair(sidecars, by_stem)
    clips: list[Clip] = []
    for stem, paths in by_stem.items():
        name = stem.relative_to(folder).as_posix()
        clips += _clips_of_stem(name, paths, sidecars_of.get(stem, []), folder, options, found)
    if clips:
        clips += [_alone(path, folder) for path in alone]
    return clips


def _alone(sidecar: Path, folder: Path) -> Clip:
    """Subtitles whose film is not there, to be told in the report."""
    name = sidecar.relative_to(folder)
    return Clip(name.as_posix(), problem=f"missing file: no film beside {one_line(str(sidecar))}")


def _clips_of_stem(
    id: str, paths: list[Path], sidecars: list[Sidecar], folder: Path, options: SourceOptions, found: Found
) -> list[Clip]:
    """Clips of the media files that share a stem: a video with its sound beside it is one, two videos are two."""
    try:
        sidecar, cues, missed = choose(sidecars, options.subtitles, options.language)
        timings = (sidecar and sidecar.path, cues)
        found.left_out += missed
    except MemofastError as error:
        timings = error
    videos = [path for path in paths if path.suffix.lower() in VIDEO]
    sounds = [path for path in paths if path.suffix.lower() in AUDIO]
    if len(videos) <= 1 and len(sounds) <= 1:
        picture = videos[0] if videos else None
        whole = Clip(id, picture, sounds[0] if sounds else picture)
        return _with_timings(whole, paths[0], timings, folder, options, found)
    clips = []
    for path in paths:
        named = Clip(f"{id}{path.suffix}", path if path in videos else None, path)
        clips += _with_timings(named, path, timings, folder, options, found)
    return clips


def _with_timings(
    clip: Clip,
    media: Path,
    timings: tuple[Path | None, list[Cue]] | MemofastError,
    folder: Path,
    options: SourceOptions,
    found: Found,
) -> list[Clip]:
    """The clip, or one clip per sentence of its subtitles: of its sidecar, else of a stream inside its file."""
    parent = media.parent.relative_to(folder).as_posix()
    clip = replace(clip, folder="" if parent == "." else parent)
    if isinstance(timings, MemofastError):
        return [replace(clip, problem=f"bad timings: {timings}")]
    place, cues = timings
    if place is None and options.subtitles == "auto" and media.suffix.lower() in CARRIERS:
        cues = stream_cues(media, options.language)
        place = media if cues else None
    if place is None:
        return [clip]
    found.subtitles[one_line(clip.id)] = one_line(str(place))
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


def _read_rows(path: Path, options: SourceOptions, found: Found) -> list[Clip]:
    root = options.media_root or path.parent
    table = read_table(path, options.columns, options.split_column)
    found.notes += table.notes
    if unplaced := sum(row.get("split") == "" for row in table.rows):
        found.notes.append(f"{path}: {unplaced} of {len(table.rows)} rows name no split; theirs are drawn")
    positions, notes = positions_of(path, table.rows, table.problems)
    found.notes += notes
    digits = max(4, len(str(len(table.rows))))
    clips = []
    for number, row in enumerate(table.rows, 1):
        name = f"{path.stem}_{number:0{digits}}"
        if problem := table.problems.get(number - 1):  # no cell of it can be trusted
            clips.append(Clip(name, problem=problem))
            continue
        clip = Clip(
            row.get("id") or name,
            label=row.get("label"),
            split=row.get("split"),
            group=name_in(row, "group"),
            dialogue=name_in(row, "dialogue"),
            position=positions[number - 1],
            speaker=name_in(row, "speaker"),
            by_itself="dialogue" in row and name_in(row, "dialogue") is None,
            emotions=_emotions(path, number, row.get("emotions", "")),
            value=_number(path, number, row.get("value", "")),
        )
        if (text := row.get("text")) is not None:
            clip = replace(clip, text=" ".join(text.split()))  # a table is taken at its word
        if file := row.get("file"):
            clip = _with_media(clip, root / file, row)
        elif "file" in row:
            clip = replace(clip, problem="missing file: the table's cell is empty")
        clips.append(clip)
    return clips


def _emotions(path: Path, row: int, cell: str) -> tuple[str, ...]:
    """Labels of a cell: a JSON list, or names between `|` or `;`; each once."""
    try:
        names = json.loads(cell) if cell.startswith("[") else re.split(r"[|;]", cell)
    except ValueError as error:
        raise MemofastError(
            f"{path}, row {row}: emotions {cell!r} are no JSON list ({error}); give names between | or ;"
        ) from error
    return tuple(dict.fromkeys(name for part in names if (name := str(part).strip())))


def _number(path: Path, row: int, cell: str) -> float | None:
    """The number of a cell, None for an empty one."""
    try:
        number = float(cell) if cell else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise MemofastError(f"{path}, row {row}: value {cell!r} is no number; leave the cell empty where it is unknown")
    return number


def _with_media(clip: Clip, media: Path, row: dict[str, str]) -> Clip:
    if not is_regular(media):
        return replace(clip, problem=f"missing file: {one_line(str(media))}")
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


def _labels_from_ids(clips: list[Clip], pattern: re.Pattern, found: Found) -> list[Clip]:
    labelled, without = [], []
    for clip in clips:
        part = pattern.search(clip.id)
        labelled.append(replace(clip, label=part[1]) if part and part[1] else clip)
        if labelled[-1] is clip:
            without.append(clip.id)
    if without:
        found.notes.append(
            f"--label-pattern finds no label in {len(without)} of {len(clips)} ids (first: {one_line(without[0])})"
        )
    return labelled


def refuse_twice(clips: list[Clip]) -> None:
    """Raises `MemofastError` where two clips have one id."""
    twice = [id for id, count in Counter(clip.id for clip in clips).items() if count > 1]
    if twice:
        raise MemofastError(
            f"id {twice[0]!r} occurs more than once ({len(twice)} such ids); make ids unique, e.g. id={{a}}_{{b}}"
        )

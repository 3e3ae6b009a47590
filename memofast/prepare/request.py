"""What is asked of a preparation: options checked, clips read, extractors chosen, and all of it handed to the
pipeline."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from memofast.devices import choose_device
from memofast.downloads import downloaded
from memofast.errors import MemofastError
from memofast.prepare.choices import corpus_name
from memofast.prepare.corpora import read_corpus
from memofast.prepare.corpora.reading import Reading
from memofast.prepare.faces.detection import check_finder
from memofast.prepare.faces.extractors import FaceChoice, parse_face
from memofast.prepare.media.streams import StreamChoice, chosen_tracks
from memofast.prepare.run.extraction import ExtractionOptions
from memofast.prepare.run.pipeline import ENGINES, PrepareOptions, prepare
from memofast.prepare.run.shards import Vocabulary
from memofast.prepare.sources.clips import Clip, SourceOptions, find_clips
from memofast.prepare.sources.folders import as_report
from memofast.prepare.sources.protocol import protocol_of_tables
from memofast.prepare.sources.spellings import spelling_notes
from memofast.prepare.sources.splits import parse_fractions
from memofast.prepare.sources.table import parse_columns
from memofast.prepare.speech.extractors import SpeechChoice, parse_speech
from memofast.prepare.speech.voice import open_voice
from memofast.prepare.subtitles.sentences import SentenceRules
from memofast.prepare.subtitles.transcripts import TRANSCRIPTS, AsrChoice, add_transcripts, parse_asr
from memofast.prepare.text.features import TextChoice, parse_text_features
from memofast.prepare.text.text_log import TextLog

_OF_COLUMNS = ("group", "dialogue", "speaker")
_WHOLE = ("folder", "file", *_OF_COLUMNS)  # what a split may keep together


@dataclass(frozen=True)
class Request:
    """The options of `memofast prepare` by their names, which `memofast prepare --help` explains. Their defaults stand
    in the command."""

    sources: list[str]
    out: Path
    name: str | None
    corpus: str | None
    vocab: Path | None
    lexicon: Path | None
    face: str | None
    face_normalisation: str
    yunet: Path | None
    speech: str
    speech_mean: int | None
    speech_functionals: str | None
    text_features: str | None
    max_seconds: float
    min_seconds: float
    subtitles: str
    language: str | None
    script: str
    asr: str | None
    audio_stream: str | None
    video_stream: str | None
    voice: str
    speaker: str
    min_speech: float
    column: list[str] | None
    media_root: Path | None
    label_pattern: str | None
    split: list[str] | None
    split_by: str
    drop_leaks: bool
    drop_missing: bool
    licence: str
    workers: int
    device: str
    engine: str
    profile: bool

    @property
    def folder(self) -> Path:
        """The corpus folder, wherever a worker stands."""
        return self.out.resolve()

    @property
    def processes(self) -> int:
        return self.workers or os.cpu_count() or 1

    @property
    def sentences(self) -> SentenceRules:
        return SentenceRules(self.min_seconds, self.max_seconds, script=self.script)

    @property
    def streams(self) -> StreamChoice:
        """Which tracks of films are read. Raises: `MemofastError` for what names none."""
        return chosen_tracks(self.video_stream, self.audio_stream)

    @property
    def vocabulary(self) -> Vocabulary | None:
        return Vocabulary(self.vocab.resolve(), self.lexicon and self.lexicon.resolve()) if self.vocab else None


@dataclass(frozen=True)
class Choices:
    """What makes rows and finds sentences, None for what was not asked for. What `auto` means is fixed here: it must
    not change when work is resumed."""

    face: FaceChoice | None
    speech: SpeechChoice
    text: TextChoice | None
    recogniser: AsrChoice | None
    device: str
    voice: str


def prepare_as_asked(request: Request, console: Console) -> None:
    """The whole of the command. Raises: `MemofastError` for what cannot be asked for, together or at all, and where no
    clip is usable."""
    name, fractions = corpus_name(request.name, request.out), parse_fractions(request.split or ["validation=0.1"])
    choices = choose(request)
    check(request, choices)
    with TextLog() as text_log:
        reading = read_clips(request, console)
    options = PrepareOptions(
        name=name,
        fractions=fractions,
        split_by=_split_by(request),
        workers=request.processes,
        licence=request.licence,
        min_speech=request.min_speech,
        engine=request.engine,
        profile=request.profile,
        face_normalisation=request.face_normalisation,
        text_features=choices.text,
        drop_leaks=request.drop_leaks,
        drop_missing=request.drop_missing,
        protocol=reading.protocol,
        corpus=request.corpus or "",
        sources={
            "left_out": as_report(reading.left_out),
            "notes": list(reading.notes),
            "subtitles": dict(reading.subtitles),
        },
        text_log=text_log,
    )
    extraction = extraction_options(request, choices, reading.clips, console)
    with text_log:
        clips = _with_transcripts(reading.clips, request, choices, console)
    prepare(clips, request.folder, request.vocabulary, extraction, options, console)


def choose(request: Request) -> Choices:
    """What the options name. Raises: `MemofastError` for an unknown name or setting, and where voice activity or a GPU
    is not there."""
    face = parse_face(request.face) if request.face else None
    speech = parse_speech(request.speech, request.speech_mean, request.speech_functionals)
    text = parse_text_features(request.text_features) if request.text_features else None
    recogniser = parse_asr(request.asr) if request.asr else None
    models = face or text or speech.path or recogniser
    device = choose_device(request.device) if models else "cpu"
    voice = request.voice if request.voice == "none" else open_voice(request.voice).name
    return Choices(face, speech, text, recogniser, device, voice)


def check(request: Request, choices: Choices) -> None:
    """Refuse options that are unknown or do not go together, before anything is read."""
    _one_of("--face-normalisation", request.face_normalisation, ("model", "corpus"))
    if request.face_normalisation == "corpus" and (choices.face is None or choices.face.kind != "denseface"):
        raise MemofastError(
            "--face-normalisation corpus is for --face denseface=FILE; other models have numbers of their own, and raw "
            "faces stay as they are"
        )
    _ = request.streams
    _one_of("--subtitles", request.subtitles, ("auto", "sidecar", "none"))
    _one_of("--speaker", request.speaker, ("active", "most-seen"))
    _one_of("--engine", request.engine, tuple(ENGINES))
    if request.lexicon and not request.vocab:
        raise MemofastError("--lexicon needs --vocab: classes are kept per word piece")
    if request.corpus:
        _check_beside_corpus(request)
    else:
        _check_split_by(request)
    if request.media_root and not request.media_root.is_dir():
        raise MemofastError(f"no folder {request.media_root} for --media-root")
    if choices.recogniser and not request.vocab:
        raise MemofastError("--asr finds sentences to tokenise; give --vocab VOCAB.txt or a tokenizer folder")


def _one_of(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise MemofastError(f"{option} is {', '.join(known[:-1])} or {known[-1]}, not {given!r}")


def _check_beside_corpus(request: Request) -> None:
    if len(request.sources) != 1:
        named = ", ".join(request.sources)
        raise MemofastError(f"--corpus {request.corpus} reads one folder, not {len(request.sources)}: {named}")
    given = {
        "--column": request.column,
        "--media-root": request.media_root,
        "--label-pattern": request.label_pattern,
        "--asr": request.asr,
        "--split": request.split,
        "--split-by": request.split_by != "id",
    }
    if option := next((name for name, value in given.items() if value), None):
        raise MemofastError(
            f"{option} is for folders and tables; --corpus {request.corpus} knows its labels, files and splits"
        )


def _check_split_by(request: Request) -> None:
    if request.split_by not in {"id", *_WHOLE} and not _split_column(request):
        raise MemofastError(f"--split-by is id, {', '.join(_WHOLE)} or column:NAME, not {request.split_by!r}")
    kind = request.split_by
    if kind in _OF_COLUMNS and not any(pair.startswith(f"{kind}=") for pair in request.column or []):
        raise MemofastError(f"--split-by {kind} needs to know the {kind}'s column: -c {kind}=COLUMN")


def _split_column(request: Request) -> str | None:
    """The column of a table that names splits."""
    kind, _, column = request.split_by.partition(":")
    return column or None if kind == "column" else None


def _split_by(request: Request) -> str:
    """How splits are drawn; a corpus as distributed has groups that are kept whole."""
    if request.corpus:
        return "group"
    return request.split_by if request.split_by in _WHOLE else "id"


def read_clips(request: Request, console: Console) -> Reading:
    """The clips of the sources, and classes, groups and folds that belong to them. Raises: `MemofastError` for sources
    that are not there or empty."""
    if request.corpus:
        return _read_corpus(request, console)
    options = SourceOptions(
        columns=parse_columns(request.column or []),
        media_root=request.media_root,
        label_pattern=request.label_pattern,
        split_column=_split_column(request),
        subtitles=request.subtitles,
        language=request.language,
        sentences=request.sentences,
    )
    found = find_clips(request.sources, options)
    notes = (*found.notes, *spelling_notes(found.clips))
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    return Reading(found.clips, protocol_of_tables(found.clips), tuple(found.left_out), notes, found.subtitles)


def _read_corpus(request: Request, console: Console) -> Reading:
    (folder,) = request.sources
    reading = read_corpus(request.corpus, Path(folder))
    for note in reading.protocol.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if not reading.protocol.scripted or request.vocab:
        return reading
    if not any(clip.picture or clip.sound for clip in reading.clips):
        raise MemofastError(
            f"{folder} holds no sound and no film, only names and labels; without --vocab not even the spoken "
            "sentences can be kept"
        )
    console.print("note: no --vocab, so the spoken sentences, the same for everybody, are left out")
    return replace(reading, clips=[replace(clip, text=None) for clip in reading.clips])


def extraction_options(request: Request, choices: Choices, clips: list[Clip], console: Console) -> ExtractionOptions:
    """How rows are made. Says what will be missing, and refuses a face detector that is none, where there are
    pictures."""
    face, yunet, pictures = choices.face, request.yunet, sum(clip.picture is not None for clip in clips)
    if face and face.kind != "frames" and pictures:
        yunet = yunet or downloaded("yunet")
        for note in check_finder(yunet):
            console.print(f"warning: {note}")
    elif pictures and request.face is None:
        console.print(f"note: no --face, so the faces of {pictures} clips are left out")
    elif face and not pictures:
        console.print(f"note: none of {len(clips)} clips has a film, so there are no rows of --face")
    return ExtractionOptions(
        face=face if pictures else None,
        yunet=yunet,
        speech=choices.speech,
        max_seconds=request.max_seconds,
        voice=choices.voice,
        speaker=request.speaker,
        device=choices.device,
        streams=request.streams,
    )


def _with_transcripts(clips: list[Clip], request: Request, choices: Choices, console: Console) -> list[Clip]:
    """Clips of files without any text, cut into the sentences that a recogniser hears, where one was asked for."""
    if not choices.recogniser:
        return clips
    return add_transcripts(
        clips,
        request.folder / TRANSCRIPTS,
        choices.recogniser,
        request.sentences,
        console,
        device=choices.device,
        threads=request.processes,
        streams=request.streams,
    )

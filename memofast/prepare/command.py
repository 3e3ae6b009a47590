"""The command `python -m memofast.prepare`: options to a prepared corpus."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memofast.errors import MemofastError

_SOURCES = "folder of media with subtitles (.srt, .vtt, .ass, in the file) or timings (.align), media file, or table (.csv, .tsv, .json, .jsonl); SPLIT=PATH names its split"
_FACE = "denseface=FILE, model=FOLDER (any transformers model of pictures) or none; settings follow: denseface=FILE,layer=trans1+last or model=FOLDER,row=cls,labels=no"
_SPEECH = "logmel, compare, egemaps or compare+egemaps (openSMILE, non-commercial licence), wav2vec2=FOLDER, hubert=, wavlm=, data2vec=, or none; of a model also FOLDER,layer=6 or layer=conv"
_TEXT = "model=FOLDER (any transformers text encoder), a row per word piece, or one with ,rows=sentence; kept in the store text_features, which pre-training does not read"
_ASR = "faster-whisper=FOLDER[,language=en][,beam=5]: sentences of files without any text, by speech recognition"
_COLUMN = "FIELD=COLUMN for a table; fields: id, file, start, end, text, label, group (dialogue, speaker), emotions (labels between | or ;, or a list), value (a number); a template works too: id=dia{Dialogue_ID}_utt{Utterance_ID}"
_CORPUS = "the folder is this corpus as distributed: iemocap, msp-improv, meld, crema-d, ravdess, emodb, emorynlp or goemotions; settings follow: iemocap,labels=6 or meld,labels=sentiment or crema-d,labels=voice,ties=first"


def main(
    sources: Annotated[list[str], typer.Argument(help=_SOURCES)],
    out: Annotated[Path, typer.Option(help="corpus folder to write; run again to go on after an interruption")],
    name: Annotated[str | None, typer.Option(help="name of the corpus; default: that of --out")] = None,
    corpus: Annotated[str | None, typer.Option(help=_CORPUS)] = None,
    vocab: Annotated[
        Path | None, typer.Option(help="vocab.txt or tokenizer folder; needed where there is text")
    ] = None,
    lexicon: Annotated[Path | None, typer.Option(help="emotion lexicon: NRC file, or word<TAB>class lines")] = None,
    face: Annotated[str | None, typer.Option(help=_FACE)] = None,
    face_normalisation: Annotated[
        str, typer.Option(help="pixel mean and std for DenseFace: of the model's training, or of this corpus's faces")
    ] = "model",
    yunet: Annotated[
        Path | None, typer.Option(help="YuNet model; default: the downloaded one, else the Haar cascade")
    ] = None,
    speech: Annotated[str, typer.Option(help=_SPEECH)] = "logmel",
    speech_mean: Annotated[
        int | None,
        typer.Option(min=1, help="frames averaged into a row; default: logmel 6, compare and egemaps 5, models 3"),
    ] = None,
    speech_functionals: Annotated[
        str | None,
        typer.Option(
            help="rows are mean and deviation over parts of the utterance: 1+2+4 for itself, halves, quarters"
        ),
    ] = None,
    text_features: Annotated[str | None, typer.Option(help=_TEXT)] = None,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="what a clip holds beyond is left out")] = 30.0,
    min_seconds: Annotated[float, typer.Option(min=0.0, help="shorter sentences of subtitles are left out")] = 1.0,
    subtitles: Annotated[str, typer.Option(help="auto (beside the film, else in its file), sidecar, or none")] = "auto",
    language: Annotated[
        str | None, typer.Option(help="of subtitles in films, as the file names it: eng; default: the longest")
    ] = None,
    script: Annotated[str, typer.Option(help="lines kept of subtitles in two languages: latin, cjk, ...")] = "latin",
    asr: Annotated[str | None, typer.Option(help=_ASR)] = None,
    voice: Annotated[
        str, typer.Option(help="voice activity: auto (silero if installed), silero, energy, or none")
    ] = "auto",
    speaker: Annotated[
        str, typer.Option(help="whose face is taken: active (who speaks; nobody may) or most-seen")
    ] = "active",
    min_speech: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="clips with a smaller share of speech are dropped")
    ] = 0.0,
    column: Annotated[list[str] | None, typer.Option("--column", "-c", help=_COLUMN)] = None,
    media_root: Annotated[
        Path | None, typer.Option(help="where a table's files lie; default: beside the table")
    ] = None,
    label_pattern: Annotated[
        str | None, typer.Option(help="regular expression; its first group, found in the id, is the label")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FRACTION by a hash of the id; the rest is train; default: validation=0.1"),
    ] = None,
    split_by: Annotated[
        str, typer.Option(help="id; folder, file or group (kept whole); or column:NAME of a table, which names splits")
    ] = "id",
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="near-duplicates of other splits' sentences leave train")
    ] = False,
    licence: Annotated[str, typer.Option(help="licence of the source, kept in the stores")] = "",
    workers: Annotated[int, typer.Option(min=0, help="processes; 0: one per core")] = 0,
    device: Annotated[str, typer.Option(help="of models: auto (the GPU if there is one), cpu or cuda")] = "auto",
    engine: Annotated[
        str, typer.Option(help="local, or ray: the cluster of RAY_ADDRESS, whose machines share the disk of --out")
    ] = "local",
    profile: Annotated[bool, typer.Option("--profile", help="print where the time went")] = False,
) -> None:
    """Turn media, subtitles and tables into a corpus of stores.

    Example: python -m memofast.prepare clips/ --out corpora/clips --vocab vocab.txt --face denseface=denseface.safetensors

    A corpus as distributed: python -m memofast.prepare MELD.Raw --corpus meld --out corpora/meld --vocab vocab.txt
    """
    from memofast.devices import choose_device
    from memofast.prepare.corpora import read_corpus
    from memofast.prepare.faces.detection import check_finder
    from memofast.prepare.faces.extractors import parse_face
    from memofast.prepare.run.extraction import ExtractionOptions
    from memofast.prepare.run.pipeline import ENGINES, PrepareOptions, prepare
    from memofast.prepare.run.shards import Vocabulary
    from memofast.prepare.sources.clips import read_sources
    from memofast.prepare.sources.protocol import protocol_of_tables
    from memofast.prepare.sources.splits import parse_fractions
    from memofast.prepare.speech.extractors import parse_speech
    from memofast.prepare.speech.voice import open_voice
    from memofast.prepare.subtitles.sentences import SentenceRules
    from memofast.prepare.subtitles.transcripts import TRANSCRIPTS, add_transcripts, parse_asr
    from memofast.prepare.text.features import parse_text_features

    console = Console(stderr=True)
    name = name or out.resolve().name
    if not re.fullmatch(r"[\w.-]+", name):
        raise MemofastError(f"--name {name!r}: a corpus name has letters, digits, dots, dashes and underscores only")
    fractions = parse_fractions(split or ["validation=0.1"])
    choice = parse_speech(speech, speech_mean, speech_functionals)
    faces = parse_face(face) if face else None
    encoder = parse_text_features(text_features) if text_features else None
    recogniser = parse_asr(asr) if asr else None
    if face_normalisation not in {"model", "corpus"}:
        raise MemofastError(f"--face-normalisation is model or corpus, not {face_normalisation!r}")
    if face_normalisation == "corpus" and (faces is None or faces.kind != "denseface"):
        raise MemofastError(
            "--face-normalisation corpus is for --face denseface=FILE; other models have numbers of their own"
        )
    models = faces or encoder or choice.path or recogniser
    device = choose_device(device) if models else "cpu"  # `auto` must not change its meaning when work is resumed
    if voice != "none":
        voice = open_voice(voice).name  # what `auto` means must not change when work is resumed
    rules = SentenceRules(min_seconds, max_seconds, script=script)
    if corpus:
        own = {"--column": column, "--media-root": media_root, "--label-pattern": label_pattern, "--asr": asr}
        _refuse_beside_corpus(corpus, sources, own | {"--split": split, "--split-by": split_by != "id"})
        reading = read_corpus(corpus, Path(sources[0]))
        clips, protocol, split_by = reading.clips, reading.protocol, "group"
        for note in protocol.notes:
            console.print(f"note: {note}")
        if protocol.scripted and not vocab:
            clips = _without_sentences(clips, sources[0], console)
    else:
        given = _source_options(column or [], media_root, label_pattern, split_by)
        if subtitles not in {"auto", "sidecar", "none"}:
            raise MemofastError(f"--subtitles is auto, sidecar or none, not {subtitles!r}")
        clips = read_sources(sources, replace(given, subtitles=subtitles, language=language, sentences=rules))
        protocol = protocol_of_tables(clips)
    if lexicon and not vocab:
        raise MemofastError("--lexicon needs --vocab: classes are kept per word piece")
    if engine not in ENGINES:
        raise MemofastError(f"--engine is {' or '.join(ENGINES)}, not {engine!r}")
    processes = workers or os.cpu_count() or 1
    if recogniser and not vocab:
        raise MemofastError("--asr finds sentences to tokenise; give --vocab VOCAB.txt or a tokenizer folder")
    pictures = sum(clip.picture is not None for clip in clips)
    if faces and pictures:
        yunet = yunet or _downloaded_yunet()
        for note in check_finder(yunet):
            console.print(f"warning: {note}")
    elif pictures and face is None:
        console.print(f"note: no --face, so the faces of {pictures} clips are left out")
    if speaker not in {"active", "most-seen"}:
        raise MemofastError(f"--speaker is active or most-seen, not {speaker!r}")
    extraction = ExtractionOptions(
        faces if pictures else None, yunet, choice, max_seconds, voice, speaker=speaker, device=device
    )
    options = PrepareOptions(
        name,
        fractions,
        _grouping(split_by),
        processes,
        licence,
        min_speech,
        engine,
        profile,
        face_normalisation,
        encoder,
        drop_leaks,
        protocol,
        corpus or "",
    )
    vocabulary = Vocabulary(vocab.resolve(), lexicon and lexicon.resolve()) if vocab else None
    try:
        if recogniser:
            folder = out.resolve() / TRANSCRIPTS
            clips = add_transcripts(clips, folder, recogniser, rules, console, device=device, threads=processes)
        prepare(clips, out.resolve(), vocabulary, extraction, options, console)
    except KeyboardInterrupt:
        console.print("interrupted; what is done is kept: run the same command again to go on")
        raise SystemExit(130) from None


def _refuse_beside_corpus(corpus: str, sources: list[str], given: dict[str, object]) -> None:
    if len(sources) != 1:
        raise MemofastError(f"--corpus {corpus} reads one folder, not {len(sources)}: {', '.join(sources)}")
    if option := next((name for name, value in given.items() if value), None):
        raise MemofastError(f"{option} is for folders and tables; --corpus {corpus} knows its labels, files and splits")


def _without_sentences(clips: list, folder: str, console: Console) -> list:
    if not any(clip.picture or clip.sound for clip in clips):
        raise MemofastError(
            f"{folder} holds no sound and no film, only names and labels; without --vocab not even the spoken sentences can be kept"
        )
    console.print("note: no --vocab, so the spoken sentences, the same for everybody, are left out")
    return [replace(clip, text=None) for clip in clips]


def _source_options(column: list[str], media_root: Path | None, label_pattern: str | None, split_by: str):
    from memofast.prepare.sources.clips import SourceOptions
    from memofast.prepare.sources.table import parse_columns

    kind, _, split_column = split_by.partition(":")
    if split_by not in {"id", "folder", "file", "group"} and not (kind == "column" and split_column):
        raise MemofastError(f"--split-by is id, folder, file, group or column:NAME, not {split_by!r}")
    if split_by == "group" and not any(pair.startswith("group=") for pair in column):
        raise MemofastError("--split-by group needs to know the group's column: -c group=COLUMN")
    if media_root and not media_root.is_dir():
        raise MemofastError(f"no folder {media_root} for --media-root")
    return SourceOptions(parse_columns(column), media_root, label_pattern, split_column or None)


def _grouping(split_by: str) -> str:
    return split_by if split_by in {"folder", "file", "group"} else "id"


def _downloaded_yunet() -> Path | None:
    from memofast.download import home_of

    path = home_of("yunet")
    return path if path.is_file() else None

"""The command `memofast prepare`: options to a prepared corpus."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memofast.locks import lock_folder
from memofast.prepare.choices import COLUMN, HEARD, SEEN, TRACK

_SOURCES = (
    "folder of media with subtitles (.srt, .vtt, .ass, .sbv, .sub, in the file) or timings (.align), media file, or "
    "table (.csv, .tsv, .json, .jsonl); SPLIT=PATH names its split"
)
_FACE = (
    "denseface=FILE, model=FOLDER (any transformers model of pictures), raw (the crops themselves, for a face network "
    "trained along) or none; 10 rows a second; settings follow: denseface=FILE,layer=trans1+last or "
    "model=FOLDER,row=cls,labels=no or raw,side=112,labels=DENSEFACE (64 pixels and no soft labels otherwise); frames "
    "or frames,side=224: whole pictures in colour, 25 rows a second, for a Perceiver"
)
_SPEECH = (
    "logmel, compare, egemaps or compare+egemaps (openSMILE, non-commercial licence), wav2vec2=FOLDER, hubert=, "
    "wavlm=, data2vec=, raw (the samples, 320 to a row: 50 rows a second, which count where recipes bound rows), "
    "raw,rate=48000 (25 rows a second, for a Perceiver), or none; of a model also FOLDER,layer=6 or layer=conv; of "
    "openSMILE and logmel also compare,stack=8: frames side by side, 12.5 rows a second"
)
_TEXT = (
    "model=FOLDER (any transformers text encoder), a row per word piece, or one with ,rows=sentence; kept in the "
    "store text_features, which pre-training does not read"
)
_ASR = "faster-whisper=FOLDER[,language=en][,beam=5]: sentences of files without any text, by speech recognition"
_CORPUS = (
    "the folder is this corpus as distributed: iemocap, msp-improv, meld, crema-d, ravdess, emodb, emorynlp or "
    "goemotions; settings follow: iemocap,labels=6 or meld,labels=sentiment or crema-d,labels=voice,ties=first"
)


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
        typer.Option(
            min=1, help="frames averaged into a row; default: logmel 6, compare and egemaps 5, models 3; not of raw"
        ),
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
        str | None, typer.Option(help="of subtitles in and beside films, as they name it: eng; default: the longest")
    ] = None,
    script: Annotated[str, typer.Option(help="lines kept of subtitles in two languages: latin, cjk, ...")] = "latin",
    asr: Annotated[str | None, typer.Option(help=_ASR)] = None,
    audio_stream: Annotated[str | None, typer.Option(help=f"sound track of films, {TRACK}; default: {HEARD}")] = None,
    video_stream: Annotated[str | None, typer.Option(help=f"picture track of films, {TRACK}; default: {SEEN}")] = None,
    voice: Annotated[
        str, typer.Option(help="voice activity: auto (silero if installed), silero, energy, or none")
    ] = "auto",
    speaker: Annotated[
        str, typer.Option(help="whose face is taken: active (who speaks; nobody may) or most-seen")
    ] = "active",
    min_speech: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="clips with a smaller share of speech are dropped")
    ] = 0.0,
    column: Annotated[list[str] | None, typer.Option("--column", "-c", help=COLUMN)] = None,
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
        str,
        typer.Option(
            help="id; folder, file, group, dialogue or speaker (kept whole); or column:NAME, which names splits"
        ),
    ] = "id",
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="near-duplicates of other splits' sentences leave train")
    ] = False,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="clips without rows of --face or of --speech are in no split or fold")
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

    Example: memofast prepare clips/ --out corpora/clips --vocab vocab.txt --face denseface=denseface.safetensors

    A corpus as distributed: memofast prepare MELD.Raw --corpus meld --out corpora/meld --vocab vocab.txt
    """
    options = dict(locals())  # every option by its name
    from memofast.prepare.request import Request, prepare_as_asked

    console = Console(stderr=True)
    try:
        with lock_folder(out):
            prepare_as_asked(Request(**options), console)
    except KeyboardInterrupt:
        console.print("interrupted; what is done is kept: run the same command again to go on")
        raise SystemExit(130) from None

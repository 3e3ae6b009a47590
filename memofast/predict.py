"""The command `memofast predict`: what a trained model says of each utterance of a film or of a folder of them."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run
from memofast.prepare.choices import COLUMN, HEARD, SEEN, TRACK


def main(
    source: Annotated[
        str, typer.Argument(help="media file, folder of them with their subtitles, or table of media or sentences")
    ],
    model: Annotated[Path, typer.Option(help="run of memofast finetune or emotion-text train, or its model folder")],
    out: Annotated[Path, typer.Option(help="folder to write: predictions.jsonl, predictions.csv, timelines")],
    subtitles: Annotated[str, typer.Option(help="auto (beside the film, else in its file) or none")] = "auto",
    windows: Annotated[
        float | None,
        typer.Option(help="without subtitles: pieces of so many seconds; default: stretches in which somebody speaks"),
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="write predictions.html with faces over the timeline")] = False,
    others: Annotated[
        bool, typer.Option(help="a row also for each person who is seen during an utterance and does not speak")
    ] = True,
    ordered: Annotated[
        str | None,
        typer.Option(metavar="CLASS,...", help="all classes from lowest to highest: each row gets a score, 0 to 100"),
    ] = None,
    column: Annotated[list[str] | None, typer.Option("--column", "-c", help=COLUMN)] = None,
    audio_stream: Annotated[str | None, typer.Option(help=f"sound track of films, {TRACK}; default: {HEARD}")] = None,
    video_stream: Annotated[str | None, typer.Option(help=f"picture track of films, {TRACK}; default: {SEEN}")] = None,
    face: Annotated[
        Path | None, typer.Option(help="DenseFace file or model folder that the training used; raw faces need none")
    ] = None,
    speech: Annotated[Path | None, typer.Option(help="speech model folder that the training used, if any")] = None,
    vocab: Annotated[Path | None, typer.Option(help="vocabulary of the training; default: the model's own")] = None,
    yunet: Annotated[Path | None, typer.Option(help="YuNet model; default: the downloaded one")] = None,
    device: Annotated[str, typer.Option(help="auto (the GPU if there is one), cpu or cuda")] = "auto",
) -> None:
    """Say what a film expresses, utterance by utterance.

    A model that was fine-tuned with context reads what was said before in the same film, or in the dialogue that a
    table names: -c dialogue=COLUMN -c position=COLUMN -c speaker=COLUMN.

    Example: memofast predict film.mp4 --model runs/finetune-20250101 --out film --face denseface.safetensors
    """
    from rich.console import Console

    from memofast.inference.films import FilmPrediction, predict_films
    from memofast.inference.preparation import Files
    from memofast.inference.segments import Cutting
    from memofast.locks import lock_folder
    from memofast.prepare.media.streams import chosen_tracks
    from memofast.prepare.sources.table import parse_columns

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    files, tracks = Files(face, speech, vocab, yunet), chosen_tracks(video_stream, audio_stream)
    columns = parse_columns(column or [])
    order = tuple(name.strip() for name in ordered.split(",")) if ordered is not None else ()
    asked = FilmPrediction(
        source, model, out, files, Cutting(subtitles, windows), html, device, others, tracks, order, columns
    )
    with lock_folder(out):
        predict_films(asked, console)


if __name__ == "__main__":
    run(main, "memofast predict")

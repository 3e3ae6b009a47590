"""The command `memofast denseface`: the network behind the face rows is trained, and a trained one is described."""

import json
from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run

main = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Train and inspect DenseFace, the network behind the face rows.",
)


@main.command(epilog="Example: memofast denseface train FER.npz --out denseface.safetensors --epochs 10")
def train(
    data: Annotated[
        Path, typer.Argument(help="npz with images [n, height, width] uint8, labels [n], classes [k] names")
    ],
    out: Annotated[Path, typer.Option(help="DenseFace file to write; training state lies beside it until done")],
    recipe: Annotated[
        str, typer.Option(help="one-cycle: 34 epochs over growing pictures; original: MEmoBERT's, up to 200 epochs")
    ] = "one-cycle",
    epochs: Annotated[
        int,
        typer.Option(
            min=0,
            help="0: the recipe's, 34 or at most 200; fewer than 17 of 34 end on pictures of 48 pixels, than 9 of 32",
        ),
    ] = 0,
    limit: Annotated[int, typer.Option(min=0, help="use this many images, drawn evenly; 0: all")] = 0,
    batch: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[float, typer.Option(min=0, help="highest learning rate; 0: the recipe's")] = 0.0,
    dropout: Annotated[float, typer.Option(min=0, max=0.9)] = 0.0,
    patience: Annotated[
        int, typer.Option(min=1, help="original: stop after this many epochs without a better one")
    ] = 8,
    validation: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="part held out, the same share of each class")
    ] = 0.1,
    seed: int = 0,
    precision: Annotated[
        str, typer.Option(help="auto, fp32 or bf16 (autocast); auto takes bf16 where the CPU has it")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0: all cores")] = 0,
    restart: Annotated[bool, typer.Option(help="ignore the state of an interrupted training")] = False,
) -> None:
    """Train DenseFace on labelled faces; an interrupted training goes on where it stopped."""
    import torch

    from memofast.locks import lock_file
    from memofast.prepare.faces.denseface_training import TrainingOptions, train_denseface

    if threads:
        torch.set_num_threads(threads)
    options = TrainingOptions(
        recipe=recipe,
        epochs=epochs,
        limit=limit,
        batch=batch,
        lr=lr,
        dropout=dropout,
        patience=patience,
        validation=validation,
        seed=seed,
        precision=precision,
    )
    with lock_file(out, parents=True):
        train_denseface(data, out, options, restart=restart)


@main.command()
def show(file: Annotated[Path, typer.Argument(help="DenseFace file")]) -> None:
    """Print what a DenseFace file holds, with its confusion matrix."""
    from memofast.model.face_networks.densenet import FEATURE_WIDTH
    from memofast.prepare.faces.denseface import DenseFace
    from memofast.prepare.faces.denseface_training import print_confusion

    model = DenseFace(file)
    print(f"{file}: {len(model.meta.classes)} classes, feature {FEATURE_WIDTH}, fingerprint {model.fingerprint}")
    print(f"faces as {model.meta.side} x {model.meta.side} pixels")
    print(json.dumps({"training": model.meta.training, "mean": model.meta.mean, "std": model.meta.std}, indent=1))
    if model.meta.validation:
        print_confusion(model.meta.classes, model.meta.validation)


if __name__ == "__main__":
    run(main, "memofast denseface")

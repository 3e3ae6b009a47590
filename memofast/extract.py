"""Write what a model makes of samples: `python -m memofast.extract MODEL --corpus FOLDER --split NAME --out FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run

_OUT = (
    "FILE.npz (arrays and offsets), FILE.parquet (a line per sample; needs the extra parquet) or FILE.pkl (MMSA's "
    "layout, padded)"
)


def main(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="model folder, or a run of memofast finetune")],
    corpus: Annotated[Path, typer.Option(metavar="FOLDER", help="corpus to read")],
    out: Annotated[Path, typer.Option(metavar="FILE", help=_OUT)],
    split: Annotated[list[str], typer.Option(help="repeat it for several; SCHEME-NN/PART is a part of a fold")],
    condition: Annotated[
        str | None,
        typer.Option(help="modalities that the model is shown, as lva; default: all that corpus and model share"),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=STREAM",
            help="rows of the corpus that are read in place of its visual or speech store; repeat it",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Write the last layer's rows of words, faces and speech, and the pooled vector, of every sample, with labels and
    ids.

    Words come without [CLS] and [SEP]. The pooled vector is that of the pooler, which pre-training alone does not
    train. Rows are spooled beside the file while they are made, so that memory holds one batch.

    Example: python -m memofast.extract runs/finetune-TIME --corpus corpora/meld --split train --split test --out
    meld.parquet
    """
    from rich.console import Console
    from transformers.utils import logging

    from memofast.inference.hidden_states.extraction import extract_into
    from memofast.locks import lock_file

    logging.disable_progress_bar()
    with lock_file(out):
        line = extract_into(out, model, corpus, split, condition, device, features or ())
    Console(highlight=False, soft_wrap=True).print(line, markup=False)


if __name__ == "__main__":
    run(main, "memofast extract")

"""The command `python -m memofast.evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.errors import MemofastError

_CORPUS = (
    "corpus to evaluate on; repeat it, or give several models, for a matrix; none: the predictions that the run kept"
)
_FEATURES = "rows of the corpus that are read in place of its visual or speech store, as speech=compare; repeat it"
_MAP = "what a label of the corpus is to the model: LABEL=CLASS, or LABEL=null to leave its samples out; repeat it"
_MAPS = "YAML file of label maps for a matrix: MODEL: {CORPUS: {class of the model: label of the corpus, or null}}"


def main(
    models: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_MODEL...", help="runs of memofast finetune, or models")
    ],
    corpus: Annotated[list[Path] | None, typer.Option(metavar="FOLDER", help=_CORPUS)] = None,
    features: Annotated[list[str] | None, typer.Option(metavar="MODALITY=STREAM", help=_FEATURES)] = None,
    split: Annotated[str, typer.Option(help="what is tested; SCHEME-NN/PART is a part of a fold")] = "test",
    conditions: Annotated[
        str | None, typer.Option(help="modalities shown, as l,v,lva; default: all that corpus and model share")
    ] = None,
    map: Annotated[list[str] | None, typer.Option(metavar="LABEL=CLASS", help=_MAP)] = None,
    maps: Annotated[Path | None, typer.Option(metavar="FILE", help=_MAPS)] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="run or model to compare with on the same samples")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="of a matrix; default: ua, or mae of values")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="default: evaluation/ in the run or model; of a matrix runs/")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Say how good a fine-tuned model is, on which data, and what chose its checkpoint.

    A run alone: the table of its kept predictions. With --corpus: the model on that corpus, with and without each
    modality. Several models or corpora: a matrix. --compare OTHER: McNemar's test and the paired bootstrap.

    Example: python -m memofast.evaluate runs/finetune-TIME --corpus corpora/meld --map joy=happy --map fear=null
    """
    from rich.console import Console
    from transformers.utils import logging

    from memofast.evaluate.evaluations import of_corpus, of_kept, of_matrix
    from memofast.evaluate.report import print_evaluation, write_evaluation
    from memofast.locks import lock_folder

    logging.disable_progress_bar()
    asked = [name.strip() for name in conditions.split(",")] if conditions else None
    many = len(models) > 1 or len(corpus or ()) > 1 or maps is not None
    if many and (map or compare):
        raise MemofastError(
            f"{'--map' if map else '--compare'} is for one model on one corpus; a matrix takes --maps FILE"
        )
    if features and (many or not corpus):
        raise MemofastError("--features is for one model on one corpus; add --corpus FOLDER, or leave it out")
    if not corpus and (many or map):
        raise MemofastError(
            f"{'several models' if many else '--map'} without a corpus to evaluate on; add --corpus FOLDER"
        )
    console = Console(highlight=False, soft_wrap=True)
    if many:
        evaluation, folder = of_matrix(models, corpus, split, asked, maps, metric, device)
    elif corpus:
        evaluation, folder = of_corpus(models[0], corpus[0], split, asked, map or (), compare, device, features or ())
    else:
        evaluation, folder = of_kept(models[0], split, asked, compare)
    folder = out or folder
    with lock_folder(folder):
        written = write_evaluation(evaluation, folder)
    print_evaluation(evaluation, console)
    console.print(f"wrote {len(written)} files into {folder}: {', '.join(sorted({path.name for path in written}))}")

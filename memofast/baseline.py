"""Simple baselines of a corpus: `python -m memofast.baseline CORPUS [key=value ...]`."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run

_SECTIONS = ("folds", "target", "modalities", "protocol")
_OF_TRAIN = ("share", "seeds")


def main(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="corpus with labels, as memofast prepare makes it")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="folds, target and modalities as of memofast finetune, as folds.by=speaker, train.share and "
            "train.seeds",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="default: runs/baseline-TIME")] = None,
) -> None:
    """Say how far simple models come on the folds, conditions and targets of a fine-tuning.

    Words by TF-IDF, rows of face, speech and streams of text by mean, deviation and quartiles of their columns, side by
    side where there are several; logistic regression and a linear SVM, of values ridge regression and a linear SVR.
    Penalties are chosen on three inner folds of the training part, of whole groups where folds.by names them.

    Example: python -m memofast.baseline corpora/ravdess folds.by=speaker folds.count=6
    """
    from rich.console import Console

    from memofast.errors import MemofastError
    from memofast.evaluate.baseline_report import baseline_results, print_baselines, write_baselines
    from memofast.locks import lock_folder
    from memofast.train.fine_tuning_recipe import read
    from memofast.train.folder import make_folder

    for given in overrides or ():
        section, _, rest = given.partition("=")[0].partition(".")
        if section not in _SECTIONS and not (section == "train" and rest in _OF_TRAIN):
            raise MemofastError(
                f"{given}: baselines have no such setting; they take {', '.join(_SECTIONS)} and "
                f"{', '.join(f'train.{name}' for name in _OF_TRAIN)}"
            )
    recipe = read("finetune", [f"corpus={corpus}", *(overrides or ())])
    results = baseline_results(recipe)
    console = Console(highlight=False, soft_wrap=True)
    print_baselines(results, console)
    folder = out or make_folder("baseline")
    with lock_folder(folder):
        written = write_baselines(results, folder, f"Simple baselines of {corpus}")
    console.print(f"wrote {' and '.join(map(str, written))}")


if __name__ == "__main__":
    run(main, "memofast baseline")

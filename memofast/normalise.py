"""The command `memofast normalise`: feature rows of a corpus z-normed within each speaker or another group."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run


def main(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="corpus folder")],
    by: Annotated[str, typer.Option(help="groups of the corpus, as speaker")] = "speaker",
    modality: Annotated[str, typer.Option(help="visual or speech")] = "speech",
) -> None:
    """Z-norm a corpus's feature rows within each speaker or other group, using all of the group's samples and no label.

    The rows that were prepared stay in their store, and preparing the corpus further goes on with them: normalise again
    after that. A model trained on such rows reads corpora normalised the same way.

    Example: memofast normalise corpora/ravdess --by speaker
    """
    from rich.console import Console

    from memofast.data import Corpus
    from memofast.locks import lock_folder
    from memofast.prepare.run.group_normalisation import normalise

    Corpus.open(corpus)  # a folder that is no corpus is not made one
    with lock_folder(corpus):
        found = normalise(corpus, modality, by)
    fewest = min(found, key=found.get)
    Console(highlight=False, soft_wrap=True).print(
        f"{modality} rows of {sum(found.values()):,} samples z-normed within each of {len(found)} groups {by}; "
        f"the smallest, {fewest}, has {found[fewest]}",
        markup=False,
    )


if __name__ == "__main__":
    run(main, "memofast normalise")

"""The command `memofast pseudo-label`: emotions of every sentence of a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run


def main(
    corpus: Annotated[Path, typer.Argument(help="corpus folder")],
    model: Annotated[Path, typer.Option(help="emotion model, or the folder of memofast emotion-text train")],
    select: Annotated[list[str] | None, typer.Option(help="splits to select from; default: train")] = None,
    neutral: Annotated[float, typer.Option(min=0, max=1, help="least probability of a sure neutral sentence")] = 0.8,
    other: Annotated[float, typer.Option(min=0, max=1, help="least probability of another sure sentence")] = 0.4,
    most: Annotated[int, typer.Option(min=0, help="sure sentences of a class, by probability; 0: any")] = 7000,
    rows: Annotated[int, typer.Option(min=1, help="word pieces of a batch")] = 4096,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Label every sentence of a corpus with emotion probabilities, and select the sure ones as split SPLIT_confident.

    Example: memofast pseudo-label corpora/films --model runs/text

    An interrupted labelling goes on where it stopped; until it is complete the corpus stays as it was.
    """
    from rich.console import Console
    from transformers.utils import logging

    from memofast.data import Corpus
    from memofast.errors import MemofastError
    from memofast.locks import lock_folder
    from memofast.text_emotion.confident import Confidence, select_confident
    from memofast.text_emotion.pseudo_labels import pseudo_label

    splits = select or ["train"]
    there = Corpus.open(corpus).splits
    if unknown := [name for name in splits if name not in there]:
        raise MemofastError(
            f"corpus {corpus} has no split {unknown[0]!r}; it has {', '.join(there)}: name one by --select"
        )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    logging.disable_progress_bar()  # of loading, which is quick
    with lock_folder(corpus):
        counts = pseudo_label(corpus, model, console, rows=rows, device=device)
        console.print(
            f"{counts.labelled:,} sentences labelled, {counts.without_words:,} samples without words, "
            f"{counts.too_long:,} too long"
        )
        for split in splits:
            name, rules = select_confident(corpus, split, Confidence(neutral, other, most))
            for rule in rules:
                console.print(f"{name}: {rule['rule']}: {rule['dropped']:,} dropped")
            kept = rules[-1]["kept"].items()
            console.print(f"{name}: " + ", ".join(f"{count:,} {emotion}" for emotion, count in kept))


if __name__ == "__main__":
    run(main, "memofast pseudo-label")

"""The command `memofast emotion-text`: text emotion models."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run

_CORPUS = (
    "KIND=PATH, or KIND:MOST=PATH for so many sentences of it; kinds: meld, emorynlp, emotionlines, goemotions, "
    "isear, dailydialog, table (columns text, label)"
)

main = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Train text emotion models on labelled text corpora. memofast pseudo-label applies them.",
)


@main.callback()
def _group() -> None:
    """Keeps `train` a command of its own."""


@main.command(
    epilog=(
        "Example: memofast emotion-text train meld=train_sent_emo.csv isear=isear.csv --evaluated "
        "meld=dev_sent_emo.csv --init MINILM --out runs/text"
    )
)
def train(
    corpora: Annotated[list[str], typer.Argument(metavar="CORPUS...", help=_CORPUS)],
    init: Annotated[Path, typer.Option(help="folder of a BERT or memofast checkpoint")],
    out: Annotated[Path, typer.Option(help="folder to write; run again to go on after an interruption")],
    evaluated: Annotated[
        list[str] | None,
        typer.Option(help="KIND=PATH that is only evaluated; its near-duplicates are removed from training"),
    ] = None,
    vocab: Annotated[Path | None, typer.Option(help="vocab.txt or tokenizer folder; default: that of --init")] = None,
    classes: Annotated[str, typer.Option(help="class set: ekman (7), memobert (5) or basic (4)")] = "ekman",
    validation: Annotated[float, typer.Option(min=0.01, max=0.5, help="share of dialogues held out")] = 0.1,
    validate_on: Annotated[str | None, typer.Option(help="hold out of this kind of corpus alone")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    samples: Annotated[int, typer.Option(min=1, help="sentences of a batch")] = 32,
    lr: Annotated[float, typer.Option(help="highest learning rate")] = 1e-4,
    metric: Annotated[str, typer.Option(help="what chooses the best: weighted_f1, macro_f1, ua or wa")] = "weighted_f1",
    class_weights: Annotated[str, typer.Option(help="none, or balanced")] = "none",
    smoothing: Annotated[float, typer.Option(min=0, max=0.9, help="of the labels")] = 0.0,
    validations: Annotated[int, typer.Option(min=1, help="per epoch")] = 2,
    patience: Annotated[int, typer.Option(min=1, help="validations without a better one before it stops")] = 4,
    seed: int = 0,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Train on merged corpora; an interrupted training goes on where it stopped.

    Near-duplicates of evaluated sentences never get into training or validation, and their number is printed.
    """
    from rich.console import Console

    from memofast.errors import MemofastError
    from memofast.locks import lock_folder
    from memofast.sections import checked
    from memofast.text_emotion.merged_text import TextSource
    from memofast.text_emotion.training import EmotionTextRun, train_emotion_text
    from memofast.train.fine_tuning_recipe import Tuning

    choices = {
        "metric": (metric, ("weighted_f1", "macro_f1", "ua", "wa")),
        "class-weights": (class_weights, ("none", "balanced")),
        "precision": (precision, ("auto", "fp32", "bf16")),
        "device": (device, ("auto", "cpu", "cuda")),
    }
    for name, (given, known) in choices.items():
        if given not in known:
            raise MemofastError(f"--{name} is {', '.join(known)}, not {given!r}")
    asked = {
        "epochs": epochs, "samples": samples, "lr": lr, "validations": validations, "patience": patience,
        "metric": metric, "class_weights": class_weights, "smoothing": smoothing, "precision": precision,
        "device": device, "seeds": [seed],
    }  # fmt: skip
    tuning = checked(asked, "emotion-text train", Tuning)
    sources, held_out = ([TextSource.parse(given) for given in list_] for list_ in (corpora, evaluated or []))
    chosen = EmotionTextRun(sources, held_out, init, out, vocab, classes, validation, validate_on, tuning, seed)
    with lock_folder(out):
        train_emotion_text(chosen, Console(highlight=False, soft_wrap=True))


if __name__ == "__main__":
    run(main, "memofast emotion-text")

"""Write an emotion model for other runtimes: `python -m memofast.export MODEL --out FILE.onnx`."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run


def main(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="model folder, or a run of memofast finetune")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="FILE.pt2 (torch.export) or FILE.onnx (needs the extra onnx)")
    ],
) -> None:
    """Write the model over padded tensors, for any number of samples and rows; its outputs are those of memofast.

    Inputs: token_ids [B, T] and text_lengths [B] int64, then per modality of the model rows [B, R, width] float32,
    named visual or speech, and visual_lengths or speech_lengths [B] int64. Output: outputs [B, classes], before
    softmax; names of the classes are in the file.

    Example: python -m memofast.export runs/finetune-TIME --out emotion.onnx
    """
    from rich.console import Console
    from transformers.utils import logging

    from memofast.errors import MemofastError
    from memofast.locks import lock_file
    from memofast.model.families import export_model

    logging.disable_progress_bar()
    if not model.exists():
        raise MemofastError(f"no run or model at {model}; check the path")
    with lock_file(out):
        names = export_model(model, out)
    Console(highlight=False, soft_wrap=True).print(f"{out}: inputs {', '.join(names)}", markup=False)


if __name__ == "__main__":
    run(main, "memofast export")

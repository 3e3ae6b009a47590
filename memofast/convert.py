"""Checkpoints of the original system and models' folders, one as the other, and adapters merged with what they adapt:
`memofast convert IN --out OUT`."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run

_IN = "model_step_N.pt of the original, or a model folder or run of memofast"
_OUT = "folder to make of a file, or of a model of adapters (LoRA); FILE.pt to make of a folder"
_HEADS = "number of attention heads, where no log/model.json is beside the file; default: 64 wide each"
_CLASSES = "names of a fine-tuned file's classes in the order of its outputs, as angry,happy; default: their numbers"


def main(
    source: Annotated[Path, typer.Argument(metavar="IN", help=_IN)],
    out: Annotated[Path, typer.Option(metavar="OUT", help=_OUT)],
    heads: Annotated[int | None, typer.Option(help=_HEADS, min=1, max=4096)] = None,
    classes: Annotated[str | None, typer.Option(metavar="NAME,NAME", help=_CLASSES)] = None,
) -> None:
    """Make a model folder of a checkpoint of the original MEmoBERT or of a model of adapters, or such a checkpoint of a
    model folder.

    Every tensor that a model here has no place for is listed, and kept in the folder: back in the original's names the
    checkpoint is the same bit for bit. Adapters (LoRA) are merged with the model that they adapt.

    Example: memofast convert output/ckpt/model_step_40000.pt --out memobert-films
    """
    from memofast.errors import MemofastError
    from memofast.locks import lock_file
    from memofast.model.adapters.kept import holds_adapters
    from memofast.model.families import file_to_folder, folder_to_file, merge_to_folder
    from memofast.model.folder import model_folder

    if not source.exists():
        raise MemofastError(f"{source}: no such file or folder; check the path")
    if source.is_dir():
        if heads or classes:
            raise MemofastError(f"--{'heads' if heads else 'classes'} is of a file; the folder {source} says its own")
        merges = holds_adapters(model_folder(source))
        if out.suffix != ".pt" and not merges:
            raise MemofastError(f"--out {out}: a model folder becomes a file; name it FILE.pt")
    names = [name.strip() for name in classes.split(",")] if classes else None
    with lock_file(out):
        if source.is_file():
            lines = file_to_folder(source, out, heads, names)
        else:
            lines = (folder_to_file if out.suffix == ".pt" else merge_to_folder)(source, out)
    print("\n".join(lines))


if __name__ == "__main__":
    run(main, "memofast convert")

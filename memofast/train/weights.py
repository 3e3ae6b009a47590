"""Weights that do not learn, kept once for all checkpoints and runs of a folder: `weights/SHA256.safetensors`, to which
checkpoints and models are linked."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISLNK
from typing import Literal

from safetensors.torch import load_file, save_file
from torch import nn

from memofast.errors import MemofastWarning
from memofast.files import (
    files_below,
    name_unless_there,
    remove,
    sha256_of,
    sweep,
    sync_entry,
    temporary_of,
    write_json,
)
from memofast.model.weights import shards_of

FOLDER = "weights"  # beside the runs
Keeping = Literal["hard", "symbolic", "reflink", "copy"]
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_LEARNT, _FROZEN = (
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
)  # as transformers names shards
_LEAST = 1 << 20  # bytes for which a second file is worth while
_YOUNG = 3600  # seconds
_FICLONE = 0x40049409  # of Linux: two files share blocks until one is written


class FrozenWeights:
    """The weights of one folder of runs that do not learn.

    Args: runs: the folder. keeping: how a model's folder holds them: by `hard` link, where the disk allows it, which
        nothing that is moved or removed can break; by relative `symbolic` link; by `reflink`, a copy that takes no room
        where the disk can have such; or as a `copy`, in one file with the others.
    """

    def __init__(self, runs: Path, keeping: Keeping = "hard"):
        self.folder, self.keeping = runs / FOLDER, keeping
        self._known: tuple[tuple, Path] | None = None

    def save(self, model: nn.Module, folder: Path) -> None:
        """Save a model in a folder that is being put together. Raises: `OSError` where the disk refuses."""
        model.save_pretrained(folder)
        self._set_apart(model, folder)
        mode = (folder / "config.json").stat().st_mode  # safetensors' own files are for their writer alone
        for path in folder.glob("*.safetensors"):
            path.chmod(mode)

    def _set_apart(self, model: nn.Module, folder: Path) -> None:
        frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
        whole = folder / _WHOLE
        if self.keeping == "copy" or not whole.is_file() or sum(map(_bytes, frozen.values())) < _LEAST:
            return
        state = (tuple(frozen), *((one.data_ptr(), one._version) for one in frozen.values()))
        stored = load_file(whole)
        apart = {name: stored.pop(name) for name in frozen if name in stored}
        self.folder.mkdir(parents=True, exist_ok=True)
        with held_together(self.folder):
            if self._known is None or self._known[0] != state or not self._known[1].is_file():
                self._known = state, self._put(apart)
            _touch(self._known[1])
            _link(self._known[1], folder / _FROZEN, self.keeping)
        save_file(stored, folder / _LEARNT, metadata={"format": "pt"})
        places = dict.fromkeys(stored, _LEARNT) | dict.fromkeys(apart, _FROZEN)
        total = sum(map(_bytes, (*stored.values(), *apart.values())))
        sums = {_LEARNT: sha256_of(folder / _LEARNT), _FROZEN: self._known[1].stem}
        write_json(folder / _INDEX, {"metadata": {"total_size": total, "sha256": sums}, "weight_map": places})
        whole.unlink()

    def _put(self, tensors: dict) -> Path:
        """Keep tensors. Returns: their file, synced, under the SHA-256 of its bytes; one that is there is looked at."""
        sweep(self.folder)
        temporary = temporary_of(self.folder / "new.safetensors")
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
            path = self.folder / f"{sha256_of(temporary)}.safetensors"
            if (there := path.is_file()) and sha256_of(path) == path.stem:
                return path
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if there:  # and damaged; what another process puts there from now on is whole
                os.replace(temporary, path)
            else:
                name_unless_there(temporary, path)
            sync_entry(self.folder)
            return path
        finally:
            remove(temporary)


def weight_files(folder: Path, remedy: str) -> list[Path]:
    """The files of a checkpoint's weights; `model.safetensors` may be missing. Raises: as `shards_of`."""
    return [folder / _WHOLE] if not os.path.lexists(folder / _INDEX) else shards_of(folder / _INDEX, remedy)


@contextmanager
def held_together(folder: Path, alone: bool = False) -> Iterator[None]:
    """Hold a folder of kept weights, as all do that link to them; alone: as who removes some does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # the disk has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def move_model(folder: Path, to: Path) -> None:
    """Bring a model's folder to another place, where its links lead to what they led to."""
    if any(path.is_symlink() for path in folder.iterdir()):
        temporary = temporary_of(to)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for path in folder.iterdir():
            (_link_to if path.is_symlink() else _link_or_copy)(path, temporary / path.name)
        os.replace(temporary, to)
        gone = temporary_of(folder)
        folder.rename(gone)  # so that half of it is never taken for the model
        remove(gone)
    else:
        folder.rename(to)


def unused(runs: Path) -> list[Path]:
    """Files of weights to which nothing in a folder of runs is linked any more; the youngest may be about to be."""
    files = sorted((runs / FOLDER).glob("*.safetensors"))
    if not files:
        return []
    found = files_below(runs)
    read = {os.path.realpath(path) for path, its in found if S_ISLNK(its.st_mode) and path.suffix == ".safetensors"}
    about = [(path, path.stat()) for path in files if os.path.realpath(path) not in read]
    return [path for path, its in about if its.st_nlink == 1 and time.time() - its.st_mtime > _YOUNG]


def changed(runs: Path) -> list[Path]:
    """Files of weights that are not what their names say."""
    return [path for path in sorted((runs / FOLDER).glob("*.safetensors")) if sha256_of(path) != path.stem]


def _bytes(tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _link(path: Path, to: Path, keeping: Keeping) -> None:
    """Let a name stand for a kept file; where the disk has no such links it becomes a copy, with a note."""
    if keeping == "symbolic":
        os.symlink(os.path.relpath(path, to.parent), to)
        return
    try:
        if keeping == "hard":
            os.link(path, to)
        else:
            with open(path, "rb") as file, open(to, "wb") as copy:
                fcntl.ioctl(copy, _FICLONE, file.fileno())
    except OSError as error:
        warnings.warn(
            f"{path.parent} takes no {keeping} links ({error.strerror}); frozen weights are copied into checkpoints",
            MemofastWarning,
            stacklevel=2,
        )
        shutil.copyfile(path, to)


def _touch(path: Path) -> None:
    """Make a kept file, or what a link leads to, young, so that it stays while links to it move."""
    with suppress(OSError):  # somebody else's
        os.utime(path)


def _link_or_copy(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # the disk has no hard links
        shutil.copy2(path, to)


def _link_to(link: Path, to: Path) -> None:
    _touch(link)
    os.symlink(os.path.relpath(link.resolve(), to.parent.resolve()), to)

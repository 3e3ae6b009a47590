"""The tensors of a model's folder: read as a whole, or refused in one line before anything is made of them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from memofast.errors import MemofastError
from memofast.files import read_json, refuse_bomb, refuse_pointer, sha256_of
from memofast.model.folder import ConfigFile, in_one_line, load_whole, read_checked
from memofast.sections import checked

Model = TypeVar("Model", bound=PreTrainedModel)

_WHOLE = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks, each before its index
ADAPTER_CONFIG = "adapter_config.json"  # as peft names it
_REMEDY = "restore it, or download it again"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Stored(NamedTuple):
    """A tensor as a file describes it; dtype None: no floating type that models compute in."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None


class _Sums(BaseModel):
    sha256: dict[str, str] = {}  # of files, which memofast writes


class _Index(BaseModel):
    weight_map: dict[str, str]
    metadata: _Sums | None = None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder: safetensors or pytorch_model.bin, in one file or in shards.

    Raises: `MemofastError` where there are none, a file is missing, damaged, a pointer or a pickle of something else,
        or the shards are not those of their index.
    """
    return {name: tensor for file in weight_files(folder) for name, tensor in read_file(file).items()}


def open_whole(folder: Path, model_class: type[Model], file: type[ConfigFile]) -> Model:
    """A model of a transformers class in evaluation mode, from its folder. file: what is read of its `config.json`.

    Raises: `MemofastError` where its weights are missing or of another model, before memory is taken for them.
    """
    config_class = model_class.config_class
    read_checked(folder, {config_class.model_type: file})
    config = in_one_line(
        folder, lambda: config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    )
    with torch.device("meta"):
        model = in_one_line(folder, lambda: model_class(config))
    check_stored(folder, {name: tuple(weight.shape) for name, weight in model.state_dict().items()}, "")
    model, _ = load_whole(partial(model_class.from_pretrained, folder, local_files_only=True), folder)
    return model.eval()


def stored_weights(folder: Path) -> dict[str, Stored]:
    """What `read_weights` would read, without its memory. Raises: as that."""
    return {name: tensor for file in weight_files(folder) for name, tensor in stored_in(file).items()}


def check_stored(
    folder: Path,
    wanted: Mapping[str, tuple[int, ...]],
    prefix: str,
    may_be_left: str = "$^",
    may_begin_anew: str = "",
) -> None:
    """Look at a folder's weights before a model takes memory for them.

    Args: wanted: shapes of the model's weights by name; prefix: what names of the folder or the model may begin with.
        may_be_left: pattern of names that the model need not have; may_begin_anew: of those that the folder need not.
    Raises: `MemofastError` for a weight of another shape, of no floating type, or that the model or the folder does not
        have, and as `read_weights`.
    """
    shapes = {name.removeprefix(prefix): tuple(shape) for name, shape in wanted.items()}
    stored = stored_weights(folder)
    there = {name.removeprefix(prefix) for name in stored}
    missing = [name for name in wanted if name.removeprefix(prefix) not in there]
    if lacking := [name for name in missing if not re.match(may_begin_anew, name)]:
        raise MemofastError(
            f"{folder}: its weights lack {first_of(lacking)}, unlike the configuration; give the folder of a whole "
            "model"
        )
    for name, (shape, dtype) in stored.items():
        own = name.removeprefix(prefix)
        if own not in shapes:
            if re.match(may_be_left, own):
                continue
            what = f"hold {name}, which it does not have"
        elif shape != shapes[own]:
            what = f"have another shape of {name}, {list(shape)} for {list(shapes[own])}"
        elif dtype is None:
            what = f"hold {name} in no floating type"
        else:
            continue
        raise MemofastError(f"{folder}: its weights {what}, unlike the configuration; give the folder of a whole model")


def read_torch(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of one file that `torch.save` wrote of a state dict. Raises: `MemofastError` as `read_weights`."""
    refuse_pointer(path)
    refuse_bomb(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of old pickles
            found = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # pickles fail in as many ways as they have bytes, and torch would advise to run them
        raise MemofastError(
            f"{path}: no whole file of tensors alone; download it again, or save the model as safetensors"
        ) from None
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise MemofastError(f"{path}: no state dict, names with a tensor each; save the model's state_dict() alone")
    for name, tensor in found.items():
        if not isinstance(name, str) or tensor.layout is not torch.strided or tensor.is_quantized:
            raise MemofastError(f"{path}: {name!r} is no plain tensor with a name; save the model's state_dict() alone")
    return found


def first_of(names: Iterable[str], shown: int = 1) -> str:
    """Names for a message: the first in order, and how many more there are."""
    ordered = sorted(names)
    told, more = ", ".join(ordered[:shown]), len(ordered) - shown
    return f"{told} and {more} more" if more > 0 else told


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint folder's weights. Raises: `MemofastError` where there are none, or adapters alone."""
    for name in _WHOLE:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return shards_of(folder / f"{name}.index.json")
    if (folder / ADAPTER_CONFIG).is_file():
        raise MemofastError(
            f"{folder}: holds adapters of another model alone; merge both first: memofast convert {folder} --out FOLDER"
        )
    raise MemofastError(f"{folder}: no model.safetensors or pytorch_model.bin; download the weights into it")


def shards_of(index: Path, remedy: str = _REMEDY) -> list[Path]:
    """The files beside an index that hold its weights, which are just those that it names.

    Raises: `MemofastError`, with a remedy, where they are not, or a file's SHA-256 is another than the index has.
    """
    refuse_pointer(index)
    try:
        told = checked(read_json(index), str(index), _Index)
    except (OSError, ValueError):
        raise MemofastError(f"{index}: not valid JSON; {remedy}") from None
    except MemofastError as error:
        raise MemofastError(f"{error}; {remedy}") from None
    where, sums = told.weight_map, told.metadata.sha256 if told.metadata else {}
    names = sorted(set(where.values()))
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise MemofastError(f"{index}: names the file {name!r}, which is not beside it; {remedy}")
        _check_shard(index.parent / name, sums.get(name), remedy)
    found = {weight: name for name in names for weight in stored_in(index.parent / name)}
    if found != where:
        wrong = first_of(weight for weight in found.keys() | where.keys() if found.get(weight) != where.get(weight))
        raise MemofastError(f"{index}: {wrong} are not where it says; {remedy}")
    if not names:
        raise MemofastError(f"{index}: names no weights; {remedy}")
    return [index.parent / name for name in names]


def _check_shard(path: Path, sha256: str | None, remedy: str) -> None:
    if not path.is_file():
        to = f", a link to {os.readlink(path)}" if path.is_symlink() else ""
        raise MemofastError(f"{path.parent}: the shard {path.name} is missing{to}; {remedy}")
    if sha256 is None:
        return
    if known_sha256(path) != sha256:
        raise MemofastError(f"{path} is not the file that was saved, whose SHA-256 is {sha256[:16]}...; {remedy}")


def known_sha256(path: Path) -> str:
    """Of a file's bytes, read once as long as it does not change. Raises: `OSError`."""
    its = path.stat()
    return _sha256_in_state(path.resolve(), its.st_ino, its.st_size, its.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_in_state(path: Path, *_state: int) -> str:
    return sha256_of(path)


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, of safetensors or `torch.save`. Raises: `MemofastError` as `read_weights`."""
    if path.suffix != ".safetensors":
        return read_torch(path)
    refuse_pointer(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unreadable(path, error) from None


def stored_in(path: Path) -> dict[str, Stored]:
    """What `read_file` would read, without its memory. Raises: as that."""
    if path.suffix != ".safetensors":
        tensors = read_torch(path, "meta")
        return {name: Stored(tuple(tensor.shape), _floating(tensor.dtype)) for name, tensor in tensors.items()}
    refuse_pointer(path)
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            return {name: Stored(tuple(s.get_shape()), _DTYPES.get(s.get_dtype())) for name, s in slices.items()}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from None


def _floating(dtype: torch.dtype) -> torch.dtype | None:
    return dtype if dtype in _DTYPES.values() else None


def _unreadable(path: Path, error: Exception) -> MemofastError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return MemofastError(f"{path}: cannot be read ({reason}); download it again")

"""What is saved of a model whose encoders are adapted: adapters and what is trained as a whole, never their base.

A folder holds `config.json`, `trained.safetensors` (heads, and what no base has), and for every encoder peft's
`adapter_config.json` and `adapter_model.safetensors`, and `base.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.adapters.base import BASE
from memofast.model.adapters.lora import ADAPTER_WEIGHTS, Lora
from memofast.model.weights import ADAPTER_CONFIG, first_of, read_file

TRAINED = "trained.safetensors"
WEIGHTS = "model.safetensors"
FILES = {TRAINED, ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE}


@dataclass(frozen=True, eq=False)
class Adaptation:
    """How a model is adapted, its `adapted`. encoders: by their folder in the model's own, "." for that itself. whole:
    names of the model's tensors that are trained as a whole, or that no base has."""

    encoders: Mapping[str, Lora]
    whole: tuple[str, ...]

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.encoders.values())).dtype


def adaptation_of(model: nn.Module) -> Adaptation | None:
    """How a model is adapted; None: it is not."""
    return getattr(model, "adapted", None)


def holds_adapters(folder: Path) -> bool:
    """Whether a model's folder holds adapters, of one encoder or several."""
    return (folder / ADAPTER_CONFIG).is_file() or any(folder.glob(f"*/{ADAPTER_CONFIG}"))


def saved_tensors(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """What a model's folder holds: by file the tensors by name."""
    own, adaptation = model.state_dict(), adaptation_of(model)
    if adaptation is None:
        return {WEIGHTS: own}
    found = {TRAINED: {name: own[name] for name in adaptation.whole}}
    return found | {_of(folder): lora.tensors() for folder, lora in adaptation.encoders.items()}


def load_saved(model: nn.Module, found: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Bring a model to such tensors, of the same names and shapes as its own."""
    adaptation = adaptation_of(model)
    if adaptation is None:
        model.load_state_dict(found[WEIGHTS])
        return
    model.load_state_dict(found[TRAINED], strict=False)
    for folder, lora in adaptation.encoders.items():
        lora.load(found[_of(folder)])


def save_adapted(model: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write the folder of an adapted model. dtype: of the floating tensors; None: as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    for name, tensors in saved_tensors(model).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        plain = {key: _in(tensor, dtype).contiguous() for key, tensor in tensors.items()}
        save_file(plain, folder / name, metadata={"format": "pt"})
    for place, lora in adaptation_of(model).encoders.items():
        lora.write_config(folder / place)


@torch.no_grad()
def round_to_saved(model: nn.Module) -> None:
    """Round what is saved of an adapted model to the type in which it is kept, so that it answers as its file will.

    Raises: `MemofastError` where that type cannot hold a number.
    """
    if (adaptation := adaptation_of(model)) is None or adaptation.dtype == torch.float32:
        return
    for tensors in saved_tensors(model).values():
        for name, tensor in tensors.items():
            rounded = _in(tensor, adaptation.dtype)
            if not torch.isfinite(rounded).all():
                raise MemofastError(f"{name} is beyond {adaptation.dtype}; keep the adapters with lora.dtype=float32")
            tensor.copy_(rounded)


def read_saved(model: nn.Module, folder: Path) -> None:
    """Bring an adapted model to what a folder holds.

    Raises: `MemofastError` where a file is missing or damaged, or holds others than the model's tensors.
    """
    found = {}
    for name, own in saved_tensors(model).items():
        found[name] = read_file(saved_file(folder, name))
        _check(folder / name, found[name], own)
    load_saved(model, found)


def saved_file(folder: Path, name: str) -> Path:
    """A file of an adapted model's folder. Raises: `MemofastError` where it is missing."""
    if not (folder / name).is_file():
        raise MemofastError(f"{folder / name} is missing; restore it, or train again")
    return folder / name


def merge_adapters(model: nn.Module) -> None:
    """Make a plain model of an adapted one, in place."""
    for lora in adaptation_of(model).encoders.values():
        lora.merge()
    model.adapted = None


def trained_of(model: nn.Module) -> tuple[int, int]:
    """How many of a model's parameters are trained, and how many there are."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def lines_on_training(model: nn.Module) -> Iterator[str]:
    """Lines on what of a model is trained."""
    if (adaptation := adaptation_of(model)) is not None:
        for lora in adaptation.encoders.values():
            yield lora.told()
    yield "{:,} of {:,} parameters are trained".format(*trained_of(model))


def _of(folder: str) -> str:
    return (Path(folder) / ADAPTER_WEIGHTS).as_posix()


def _in(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _check(path: Path, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    if other := found.keys() ^ own.keys():
        where = "the file" if min(other) in found else "what is adapted"
        raise MemofastError(f"{path}: only {where} has {first_of(other)}; give the adapters of this model")
    for name, tensor in found.items():
        if tensor.shape != own[name].shape or tensor.is_floating_point() != own[name].is_floating_point():
            raise MemofastError(
                f"{path}: {name} is {list(tensor.shape)} {tensor.dtype}, of what is adapted {list(own[name].shape)}; "
                "give the adapters of this model"
            )
        if not torch.isfinite(tensor).all():
            raise MemofastError(f"{path}: {name} is not finite; restore it, or train again")

"""DenseFace files: one safetensors file with the network's weights, and in its header, under `meta.json`, the class
names, head width, pixel mean and standard deviation, how it was trained, and its confusion matrix on the validation
part."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from memofast.errors import MemofastError
from memofast.files import parse_json, refuse_pointer, replace_file
from memofast.model.face_networks.densenet import FEATURE_WIDTH, SIDE, SIDES, DenseNet
from memofast.schemas import Name, Schema, fault_of

_KIND = "memofast.denseface"


@dataclass(frozen=True)
class DenseFaceMeta:
    """mean and std of the pixels on the 0..255 scale; classes in the order of the soft label; validation: how well it
    does; side: of the pictures that the network sees, to which crops are shrunk."""

    classes: tuple[str, ...]
    mean: float
    std: float
    feature_width: int = FEATURE_WIDTH
    training: dict = field(default_factory=dict)
    validation: dict = field(default_factory=dict)
    side: int = SIDE


def save_denseface(path: Path, weights: dict[str, torch.Tensor], meta: DenseFaceMeta) -> None:
    """Write a DenseFace file; nothing half-written ever stands under `path`."""
    described = {"kind": _KIND, "head_width": len(meta.classes), **asdict(meta)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    replace_file(path, save(tensors, metadata={"meta.json": json.dumps(described)}), parents=True)


class _Described(Schema):
    """The header of a DenseFace file."""

    kind: Literal[_KIND]
    feature_width: Literal[FEATURE_WIDTH]
    classes: Annotated[list[Name], Field(min_length=2, max_length=1000)]
    mean: Annotated[float, Field(ge=0, le=255)]
    std: Annotated[float, Field(gt=0, le=255)]
    training: dict
    validation: dict
    side: Literal[SIDES] = SIDE


def load_denseface(path: Path) -> tuple[DenseFaceMeta, dict[str, torch.Tensor]]:
    """What `save_denseface` wrote. Raises: `MemofastError` where the file is none, or damaged."""
    advice = "train one with `memofast denseface train FER.npz --out FILE`"
    if not path.is_file():
        raise MemofastError(f"no DenseFace file at {path}; {advice}")
    refuse_pointer(path)
    try:
        with safe_open(path, "pt") as file:
            meta = parse_json((file.metadata() or {})["meta.json"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, ValueError) as error:
        raise MemofastError(f"{path} is not a DenseFace file; {advice}") from error
    if fault := fault_of(meta, _Described):
        raise MemofastError(f"{path} is not a DenseFace file ({fault}); {advice}")
    with torch.device("meta"):
        wanted = DenseNet(len(meta["classes"])).state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        found, own = (_told(of.get(name)) for of in (weights, wanted))
        if found != own:
            raise MemofastError(f"{path} is not a DenseFace file: its {name} is {found}, not {own}; {advice}")
        if not weights[name].isfinite().all():
            raise MemofastError(f"{path} is damaged: its {name} holds numbers that are none; {advice}")
    known = {name: meta[name] for name in ("mean", "std", "feature_width", "training", "validation")}
    known["side"] = meta.get("side", SIDE)  # older files have none
    return DenseFaceMeta(classes=tuple(meta["classes"]), **known), weights


def _told(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else f"{list(tensor.shape)} {tensor.dtype}".replace("torch.", "")

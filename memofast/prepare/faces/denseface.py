"""DenseFace: emotion features of face crops. `memofast denseface train FER.npz --out FILE` trains it.

A DenseFace file is one safetensors file: the network's weights, and in its header, under `meta.json`, the class names,
head width, pixel mean and standard deviation, how it was trained, and its confusion matrix on the validation part.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from memofast.errors import MemofastError
from memofast.files import parse_json, refuse_pointer, replace_file
from memofast.prepare.faces.densenet import FEATURE_WIDTH, LAYER_WIDTHS, SIDE, DenseNet
from memofast.prepare.faces.picture_schedule import SIDES, shrink
from memofast.prepare.fingerprint import fingerprint
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


class DenseFace:
    """A trained DenseFace. `fingerprint` names its weights.

    Args: layers: whose activations are the feature, beside each other: `trans1`, `trans2`, `last`. pixels: mean and
        standard deviation to normalise by; None: those of its training. batch: crops at once.
    """

    def __init__(
        self,
        path: Path,
        batch: int | None = None,
        layers: tuple[str, ...] = ("last",),
        pixels: tuple[float, float] | None = None,
        device: torch.device | str = "cpu",
    ):
        self.meta, weights = _load(path)
        self.layers, self.device = layers, torch.device(device)
        # on a CPU the activations of 64 crops no longer lie in its caches: 92 crops a second in sixteens, 54 in
        # sixty-fours
        self.batch = batch or (16 if self.device.type == "cpu" else 256)
        self.mean, self.std = pixels or (self.meta.mean, self.meta.std)
        self.width = sum(LAYER_WIDTHS[layer] for layer in layers)
        self.fingerprint = fingerprint(weights, None if self.meta.side == SIDE else {"side": self.meta.side})
        self._net = DenseNet(len(self.meta.classes)).eval()
        self._net.load_state_dict(weights)
        self._net.to(device)

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops [n, 64, 64] uint8 grey -> features [n, width] float32 and soft labels [n, classes] float32, rows
        summing to 1."""
        features, labels = [], []
        for first in range(0, len(crops), self.batch):
            pixels = torch.from_numpy(crops[first : first + self.batch]).to(self.device)[:, None].float()
            found = self._net.activations((shrink(pixels, self.meta.side) - self.mean) / self.std)
            features.append(torch.cat([found[layer] for layer in self.layers], 1).cpu().numpy())
            labels.append(found["logits"].softmax(1).cpu().numpy())
        if not features:
            return np.empty((0, self.width), np.float32), np.empty((0, len(self.meta.classes)), np.float32)
        return np.concatenate(features), np.concatenate(labels)


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


def _load(path: Path) -> tuple[DenseFaceMeta, dict[str, torch.Tensor]]:
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


def resize_faces(images: np.ndarray) -> np.ndarray:
    """Images [n, height, width] uint8 -> [n, 64, 64] uint8, bilinear."""
    if images.shape[1:] == (SIDE, SIDE):
        return images
    resized = np.empty((len(images), SIDE, SIDE), np.uint8)
    for first in range(0, len(images), 4096):
        part = torch.from_numpy(images[first : first + 4096])[:, None].float()
        part = torch.nn.functional.interpolate(part, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        resized[first : first + 4096] = part[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()
    return resized

"""DenseFace: emotion features of face crops. `python -m memofast.prepare.faces.denseface train FER.npz --out FILE` trains it.

A DenseFace file is one safetensors file: the network's weights, and in its header, under `meta.json`, the class names, head width,
pixel mean and standard deviation, how it was trained, and its confusion matrix on the validation part.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.prepare.faces.densenet import FEATURE_WIDTH, LAYER_WIDTHS, SIDE, DenseNet
from memofast.prepare.fingerprint import fingerprint

_KIND = "memofast.denseface"


@dataclass(frozen=True)
class DenseFaceMeta:
    """mean and std of the pixels on the 0..255 scale; classes in the order of the soft label; validation: how well it does."""

    classes: tuple[str, ...]
    mean: float
    std: float
    feature_width: int = FEATURE_WIDTH
    training: dict = field(default_factory=dict)
    validation: dict = field(default_factory=dict)


def save_denseface(path: Path, weights: dict[str, torch.Tensor], meta: DenseFaceMeta) -> None:
    """Write a DenseFace file; nothing half-written ever stands under `path`."""
    described = {"kind": _KIND, "head_width": len(meta.classes), **asdict(meta)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    replace_file(path, save(tensors, metadata={"meta.json": json.dumps(described)}))


class DenseFace:
    """A trained DenseFace. `fingerprint` names its weights.

    Args: layers: whose activations are the feature, beside each other: `trans1`, `trans2`, `last`. pixels: mean and standard deviation to
        normalise by; None: those of its training. batch: crops at once.
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
        # on a CPU the activations of 64 crops no longer lie in its caches: 92 crops a second in sixteens, 54 in sixty-fours
        self.batch = batch or (16 if self.device.type == "cpu" else 256)
        self.mean, self.std = pixels or (self.meta.mean, self.meta.std)
        self.width = sum(LAYER_WIDTHS[layer] for layer in layers)
        self.fingerprint = fingerprint(weights)
        self._net = DenseNet(len(self.meta.classes)).eval()
        self._net.load_state_dict(weights)
        self._net.to(device)

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops [n, 64, 64] uint8 grey -> features [n, width] float32 and soft labels [n, classes] float32, rows summing to 1."""
        features, labels = [], []
        for first in range(0, len(crops), self.batch):
            pixels = torch.from_numpy(crops[first : first + self.batch]).to(self.device)[:, None].float()
            found = self._net.activations((pixels - self.mean) / self.std)
            features.append(torch.cat([found[layer] for layer in self.layers], 1).cpu().numpy())
            labels.append(found["logits"].softmax(1).cpu().numpy())
        if not features:
            return np.empty((0, self.width), np.float32), np.empty((0, len(self.meta.classes)), np.float32)
        return np.concatenate(features), np.concatenate(labels)


def _load(path: Path) -> tuple[DenseFaceMeta, dict[str, torch.Tensor]]:
    advice = "train one with `python -m memofast.prepare.faces.denseface train FER.npz --out FILE`"
    if not path.is_file():
        raise MemofastError(f"no DenseFace file at {path}; {advice}")
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["meta.json"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if meta["kind"] != _KIND or meta["feature_width"] != FEATURE_WIDTH:
            raise KeyError(_KIND)
    except (SafetensorError, KeyError, ValueError) as error:
        raise MemofastError(f"{path} is not a DenseFace file; {advice}") from error
    known = {name: meta[name] for name in ("mean", "std", "feature_width", "training", "validation")}
    return DenseFaceMeta(classes=tuple(meta["classes"]), **known), weights


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


main = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Train and inspect DenseFace, the network behind the face rows.",
)


@main.command(
    epilog="Example: python -m memofast.prepare.faces.denseface train FER.npz --out denseface.safetensors --epochs 10"
)
def train(
    data: Annotated[
        Path, typer.Argument(help="npz with images [n, height, width] uint8, labels [n], classes [k] names")
    ],
    out: Annotated[Path, typer.Option(help="DenseFace file to write; training state lies beside it until done")],
    recipe: Annotated[
        str, typer.Option(help="one-cycle: 34 epochs over growing pictures; original: MEmoBERT's, up to 200 epochs")
    ] = "one-cycle",
    epochs: Annotated[int, typer.Option(min=0, help="0: the recipe's, 34 or at most 200")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="use this many images, drawn evenly; 0: all")] = 0,
    batch: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[float, typer.Option(min=0, help="highest learning rate; 0: the recipe's")] = 0.0,
    dropout: Annotated[float, typer.Option(min=0, max=0.9)] = 0.0,
    patience: Annotated[
        int, typer.Option(min=1, help="original: stop after this many epochs without a better one")
    ] = 8,
    validation: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="part held out, the same share of each class")
    ] = 0.1,
    seed: int = 0,
    precision: Annotated[
        str, typer.Option(help="auto, fp32 or bf16 (autocast); auto takes bf16 where the CPU has it")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0: all cores")] = 0,
    restart: Annotated[bool, typer.Option(help="ignore the state of an interrupted training")] = False,
) -> None:
    """Train DenseFace on labelled faces; an interrupted training goes on where it stopped."""
    from memofast.prepare.faces.denseface_training import TrainingOptions, train_denseface

    if threads:
        torch.set_num_threads(threads)
    options = TrainingOptions(
        recipe=recipe,
        epochs=epochs,
        limit=limit,
        batch=batch,
        lr=lr,
        dropout=dropout,
        patience=patience,
        validation=validation,
        seed=seed,
        precision=precision,
    )
    train_denseface(data, out, options, restart=restart)


@main.command()
def show(file: Annotated[Path, typer.Argument(help="DenseFace file")]) -> None:
    """Print what a DenseFace file holds, with its confusion matrix."""
    from memofast.prepare.faces.denseface_training import print_confusion

    model = DenseFace(file)
    print(f"{file}: {len(model.meta.classes)} classes, feature {FEATURE_WIDTH}, fingerprint {model.fingerprint}")
    print(json.dumps({"training": model.meta.training, "mean": model.meta.mean, "std": model.meta.std}, indent=1))
    if model.meta.validation:
        print_confusion(model.meta.classes, model.meta.validation)


if __name__ == "__main__":
    from memofast.cli import run

    run(main, "python -m memofast.prepare.faces.denseface")

"""DenseFace: emotion features of face crops. `memofast denseface train FER.npz --out FILE` trains it."""

from pathlib import Path

import numpy as np
import torch

from memofast.model.face_networks.denseface_file import load_denseface
from memofast.model.face_networks.densenet import LAYER_WIDTHS, SIDE, DenseNet, shrink
from memofast.prepare.fingerprint import fingerprint


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
        self.meta, weights = load_denseface(path)
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

"""A face network that is trained along with a model: raw crops of a whole batch to its feature rows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.face_networks import densenet, resnet3d
from memofast.model.face_networks.augmentation import augmented
from memofast.model.face_networks.denseface_file import load_denseface
from memofast.model.face_networks.frozen_norm import FrozenNorm, freeze_norms
from memofast.ops.philox import rows_of

WIDTHS = {"denseface": densenet.FEATURE_WIDTH, "resnet3d": resnet3d.FEATURE_WIDTH}
PARTS = {"denseface": 4, "resnet3d": 9}  # that can be frozen: stem with the first block, and so on; the norm behind it
CROPS = (64, 112)  # sides of the crops that `prepare --face raw` keeps


class FaceNetwork(nn.Module):
    """Grey crops, normalised and in training changed at random, through a network to feature rows.

    Batch norms are frozen: they use the statistics that they begin with, a DenseFace file's or those of the first data
    (`settle`), so that a face's row depends on nothing but its clip, and ranks and accumulation agree.

    Args:
        network: a key of `WIDTHS`. crop: side of the crops as they are stored; side: to which they are shrunk; mean,
        std: of pixels from 0 to 255. frozen: first parts that are not trained. augment: whether to change crops in
        training, with `noise` of up to so many grey levels.
    """

    def __init__(
        self,
        network: str,
        crop: int,
        side: int,
        mean: float,
        std: float,
        frozen: int = 0,
        augment: bool = True,
        noise: float = 0.0,
    ):
        super().__init__()
        self.kind, self.crop, self.side, self.mean, self.std = network, crop, side, mean, std
        self.augment, self.noise = augment, noise
        self.body = densenet.DenseNet(0) if network == "denseface" else resnet3d.ResNet3d()
        freeze_norms(self.body)
        for part in self._parts()[:frozen]:
            part.requires_grad_(False)

    @property
    def width(self) -> int:
        return WIDTHS[self.kind]

    def _parts(self) -> list[nn.ModuleList]:
        """What can be frozen, from the pictures on: `PARTS` of them."""
        body = self.body
        if self.kind == "denseface":
            first, *stages = body.stages
            pairs = zip(stages[::2], stages[1::2], strict=True)
            return [nn.ModuleList(part) for part in ((body.stem, first), *pairs, (body.norm,))]
        return [nn.ModuleList(part) for part in ((body.stem, body.norm), *((block,) for block in body.blocks))]

    def norms(self) -> list[FrozenNorm]:
        return [module for module in self.modules() if isinstance(module, FrozenNorm)]

    def forward(self, crops: Tensor, offsets: Tensor, sample_keys: Tensor, rng: Tensor | None) -> Tensor:
        """Feature rows [n, width] of crops.

        Args: crops [n, crop * crop] uint8; offsets [B+1] int32, first of each clip; sample_keys [B] int64; rng [2]
            int64, needed in training mode with `augment`.
        """
        pictures = crops.view(-1, 1, self.crop, self.crop).float()
        if self.training and self.augment:
            pictures = augmented(pictures, rng, sample_keys, offsets, self.noise)
        return self.features(pictures, rows_of(offsets, len(pictures))[0])

    def features(self, pictures: Tensor, sample: Tensor) -> Tensor:
        """Feature rows [n, width] of pictures [n, 1, crop, crop] float of grey levels; sample [n] int64: the clip of
        each."""
        pictures = (densenet.shrink(pictures, self.side) - self.mean) / self.std
        pictures = pictures.to(self.body.stem.weight.dtype)
        return self.body.activations(pictures)["last"] if self.kind == "denseface" else self.body(pictures, sample)

    @torch.no_grad()
    def settle(self, crops: Tensor, offsets: Tensor, sample_keys: Tensor) -> None:
        """Let the norms begin with the statistics of these clips."""
        training = self.training
        self.eval()
        for norm in self.norms():
            norm.settling = True
        self(crops, offsets, sample_keys, None)
        for norm in self.norms():
            norm.settling = False
        self.train(training)


def denseface_weights(path: str | Path, network: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights of a `FaceNetwork` out of a DenseFace file, by their names in its `body`, and its `side`, `mean` and
    `std`.

    Raises: `MemofastError` where the file is none, or the network another.
    """
    if network != "denseface":
        raise MemofastError(f"model.face.init: {path} is a DenseFace, model.face.network {network}; leave one out")
    meta, weights = load_denseface(Path(path))
    own = {n: weight for n, weight in weights.items() if not n.startswith("head.") and "num_batches" not in n}
    return own, {"side": meta.side, "mean": meta.mean, "std": meta.std}

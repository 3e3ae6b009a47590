"""What fixed encoders make of samples, computed once: by the content of a sample, how it is read, and the encoder."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from memofast.data.view import View
from memofast.store.feature_cache import MAKER_BYTES, FeatureCache

_NOT_READ = {"train", "spec_augment", "rounded"}  # entries that change nothing of what a fixed encoder makes


class Encoding(Protocol):
    """What is asked of a tower, see `Tower`."""

    modality: str
    entry: dict[str, Any]
    encoder: nn.Module

    def contents(self, view: View, there: Tensor) -> list[bytes]: ...

    def reading(self) -> dict[str, Any]: ...

    def pooled(self, view: View, there: Tensor) -> Tensor: ...


class KeptFeatures:
    """The vectors of one tower, before the map to the common width. Each sample is read by itself and in fp32, so that
    a number depends on no batch, order or mode.

    dtype: in which they are kept, and what is computed anew is rounded to. made: vectors that were not there.
    """

    def __init__(self, cache: FeatureCache, tower: Encoding, dtype: str):
        self.cache, self.dtype = cache, np.dtype(dtype)
        self.maker, self.made = fingerprint(tower, dtype), 0

    def pooled(self, tower: Encoding, view: View, there: Tensor) -> Tensor:
        """As `Tower.pooled`: read where they are kept, made and kept where not [n, C] fp32."""
        keys = [self.maker + content for content in tower.contents(view, there)]
        found = dict(zip(keys, self.cache.read(keys), strict=True))
        lacking = {key: there[place : place + 1] for place, key in enumerate(keys) if found[key] is None}
        made = {key: self._made(tower, view, sample) for key, sample in lacking.items()}
        if made:
            self.cache.add(made)
        self.made += len(made)
        numbers = np.stack([made.get(key, found[key]) for key in keys])
        return torch.from_numpy(numbers.astype(np.float32)).to(there.device)

    def _made(self, tower: Encoding, view: View, sample: Tensor) -> np.ndarray:
        with torch.no_grad(), torch.autocast(sample.device.type, enabled=False):
            return tower.pooled(view, sample)[0].float().cpu().numpy().astype(self.dtype)


def fingerprint(tower: Encoding, dtype: str) -> bytes:
    """Of an encoder's weights, how samples become its input, and the type in which its vectors are kept."""
    digest = hashlib.sha256()
    read = {name: value for name, value in tower.entry.items() if name not in _NOT_READ} | tower.reading()
    digest.update(json.dumps([tower.modality, read, dtype], sort_keys=True).encode())
    for name, weight in sorted(tower.encoder.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()[:MAKER_BYTES]

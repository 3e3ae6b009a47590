"""Random numbers of foreign encoders, which take those of torch and numpy: made to depend on the run's seed, the update
and the samples alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def drawing(rng: Tensor | None, keys: Tensor, part: str) -> Iterator[None]:
    """Within it, torch's and numpy's generators begin where these say; behind it they go on as if nothing was drawn.

    Args: rng [2] int64: seed and update; None: nothing is drawn. keys [B] int64: the samples' names, in their order, so
        that micro-batches of one update differ. part: of the model; parts differ.
    """
    if rng is None:
        yield
        return
    told = torch.cat([rng.cpu(), keys.cpu()]).numpy().tobytes() + part.encode()
    seed = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little")
    of_numpy = np.random.get_state()
    with torch.random.fork_rng(devices=[keys.device] if keys.device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if keys.device.type == "cuda":
            with torch.cuda.device(keys.device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(of_numpy)

"""Names of networks by what they hold: the same weights and settings give the same name."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch


def fingerprint(weights: Mapping[str, torch.Tensor], settings: Mapping[str, Any] | None = None) -> str:
    """32 hexadecimal digits of BLAKE2b over names and bytes of the weights, and over the settings where there are
    any."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    if settings:
        digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()

"""Philox-4x32-10, the source of every random number, and the layout of its counters.

Every random decision is a function of (run seed, step, purpose, site, sample key, position, block), so that neither
batch composition, backend, worker nor rank can change it. This is the reference of `csrc/rows/philox.h`, bit for bit.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from enum import IntEnum

import torch
from torch import Tensor

from memofast import _C

_MASK32 = 0xFFFFFFFF


class Purpose(IntEnum):
    """What a draw is for; part of the key, so that no two uses ever share numbers."""

    DROPOUT = 1
    ATTENTION_DROPOUT = 2
    MASK = 3
    VALIDATION_MASK = 4
    OBJECTIVE = 5
    SHUFFLE = 6
    STREAM = 7
    DEMO = 8
    PARTNER = 9
    VALIDATION_PARTNER = 10
    AUGMENTATION = 11
    POOL = 12


class Place(IntEnum):
    """Where in a layer a draw is used; see `site`. Layer 0 is the embeddings, layer i + 1 is encoder layer i."""

    EMBEDDING = 0
    ATTENTION = 1
    ATTENTION_OUTPUT = 2
    FEED_FORWARD_OUTPUT = 3
    HEAD = 4
    VISUAL_BLOCK = 5
    SPEECH_BLOCK = 6
    ADAPTER = 7


def site(layer: int, place: int) -> int:
    """The site number of one place in one layer: `layer * 256 + place`."""
    return layer * 256 + int(place)


def philox(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Ten rounds of Philox-4x32.

    Args: key and counter words, broadcastable int64 tensors holding values in [0, 2^32).
    Returns: [..., 4] int64, words in [0, 2^32).
    """
    k0, k1 = key
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    for _ in range(10):
        a = c0 * 0xD2511F53  # wraps modulo 2^64, which keeps both 32-bit halves right
        b = c2 * 0xCD9E8D57
        c0, c1 = ((b >> 32) & _MASK32) ^ c1 ^ k0, b & _MASK32
        c2, c3 = ((a >> 32) & _MASK32) ^ c3 ^ k1, a & _MASK32
        k0 = (k0 + 0x9E3779B9) & _MASK32
        k1 = (k1 + 0xBB67AE85) & _MASK32
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def split_words(value: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high 32-bit words of int64 values, as int64 in [0, 2^32)."""
    return value & _MASK32, (value >> 32) & _MASK32


def stream_key(rng: Tensor, purpose: int, site: int) -> tuple[Tensor, Tensor]:
    """The key of one purpose and site at one update.

    Args: rng [2] int64, run seed and update number.
    Returns: the first two words of Philox(key = seed; counter = step low, step high, purpose, site).
    """
    seed, step = rng[0], rng[1]
    low, high = split_words(step)
    constant = torch.zeros_like(low)
    words = philox(split_words(seed), (low, high, constant + int(purpose), constant + int(site)))
    return words[0], words[1]


def draw(key: tuple[Tensor, Tensor], sample_keys: Tensor, positions: Tensor, blocks: Tensor) -> Tensor:
    """Four words for each (sample key, position, block), which broadcast against one another.

    Args: sample_keys int64 (any value); positions, blocks int64 in [0, 2^32).
    Returns: [..., 4] int64 words in [0, 2^32).
    """
    low, high = split_words(sample_keys)
    return philox(key, (low, high, positions, blocks))


def sample_words(rng: Tensor, purpose: int, site: int, sample_keys: Tensor) -> Tensor:
    """What is drawn once for each sample: the words of its position 0 and block 0, on the CPU.

    Args: rng [2] int64, run seed and update number; sample_keys [B] int64. Returns: [B, 4] int64 words in [0, 2^32).
    """
    words = torch.empty(len(sample_keys), 4, dtype=torch.int64)
    if _C.sample_words(rng, purpose, site, sample_keys.contiguous(), words):
        raise ValueError(
            f"sample_words: rng [2] and sample_keys [B] must be int64 on the CPU, purpose and site 32-bit integers; "
            f"got {list(rng.shape)} {rng.dtype}, {list(sample_keys.shape)} {sample_keys.dtype}, {purpose}, {site}"
        )
    return words


def lanes16(words: Tensor) -> Tensor:
    """The eight 16-bit lanes of each draw, low half of a word first.

    Args: words [..., 4] int64. Returns: [..., 8] int64 in [0, 65536).
    """
    return torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(-2)


def below(words: Tensor, n: Tensor | int) -> Tensor:
    """Uniform integers in [0, n): `(word * n) >> 32`."""
    return (words * n) >> 32


def drop_threshold(p: float) -> int:
    """A lane is kept where it is at least this: round(65536 p). Raises `ValueError` where p is not in [0, 1) or nothing
    is kept."""
    if not isinstance(p, int | float) or not 0.0 <= p < 1.0:
        raise ValueError(f"dropout probability must lie in [0, 1), got {p}")
    threshold = round(65536 * p)
    if threshold == 65536:
        raise ValueError(f"dropout probability {p} keeps nothing")
    return threshold


def keep_scale(p: float) -> float:
    """What dropout multiplies kept values with: the inverse of the true share kept, 65536 / (65536 -
    drop_threshold(p))."""
    return 65536 / (65536 - drop_threshold(p))


def rows_of(offsets: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Which sample each packed row belongs to, and its position there; rows past `offsets[-1]` belong to sample B.

    Args: offsets [B+1] int32. Returns: sample [rows] int64, position [rows] int64.
    """
    row = torch.arange(rows, device=offsets.device)
    ends = offsets[1:].to(torch.int64)
    sample = torch.searchsorted(ends, row, right=True)
    return sample, row - offsets.to(torch.int64)[sample]


def hidden_keep_mask(
    rng: Tensor, site: int, sample_keys: Tensor, offsets: Tensor, rows: int, width: int, p: float
) -> Tensor:
    """Which elements of packed hidden rows dropout keeps.

    Layout: position = row within the sample, block = channel // 8, lane = channel % 8.
    Returns: [rows, width] bool; False past `offsets[-1]`.
    """
    sample, position = rows_of(offsets, rows)
    inside = sample < sample_keys.numel()
    keys = sample_keys[sample.clamp(max=max(sample_keys.numel() - 1, 0))] if sample_keys.numel() else sample
    blocks = torch.arange((width + 7) // 8, device=offsets.device)
    words = draw(stream_key(rng, Purpose.DROPOUT, site), keys[:, None], position[:, None], blocks[None, :])
    keep = lanes16(words).flatten(1)[:, :width] >= drop_threshold(p)
    return keep & inside[:, None]


def keep_factors(rng: Tensor, site: int, sample_keys: Tensor, rows: int, width: int, p: float) -> Tensor:
    """What dropout multiplies hidden rows of as many rows a sample with, where nothing else is fused with it: 0, or
    `keep_scale` where `hidden_keep_mask` keeps.

    Args: rng [2] int64, run seed and update number; sample_keys [B] int64. Returns: [B, rows, width] fp32.
    """
    samples = len(sample_keys)
    if not sample_keys.is_cpu:
        offsets = torch.arange(samples + 1, device=sample_keys.device, dtype=torch.int32) * rows
        keep = hidden_keep_mask(rng, site, sample_keys, offsets, samples * rows, width, p)
        return keep.view(samples, rows, width) * keep_scale(p)
    factors = torch.empty(samples, rows, width)
    if _C.keep_factors(rng, Purpose.DROPOUT, site, sample_keys.contiguous(), drop_threshold(p), keep_scale(p), factors):
        raise ValueError(
            f"keep_factors: rng [2] and sample_keys [B] must be int64 on one device and site a 32-bit integer; got "
            f"{list(rng.shape)} {rng.dtype}, {list(sample_keys.shape)} {sample_keys.dtype}, {site}"
        )
    return factors

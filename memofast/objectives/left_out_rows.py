"""Rows that a masked auto-encoder leaves out: by another mask in every update, or by one of few that a sample has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memofast import ops
from memofast.data.batch import StreamRows
from memofast.ops.philox import Purpose, below, sample_words


def draws(
    masks: int | None, keys: Tensor, rng: Tensor, purpose: Purpose, site: int
) -> list[tuple[Tensor, Tensor | None]]:
    """What masks are drawn from, [2] int64, and for which samples [B] bool: seed and update for all, or seed and the
    number of one of `masks` masks, which Philox(seed, update, purpose, key) draws.

    Source of few masks: the three that MEmoBERT's prepare_mask keeps of each clip.
    """
    if masks is None:
        return [(rng, None)]
    words = sample_words(rng.cpu(), purpose, site, keys.cpu())[:, 0]
    drawn = below(words, torch.full_like(words, masks)).to(keys.device)
    return [(torch.stack((rng[0], rng.new_tensor(mask))), drawn == mask) for mask in range(masks)]


def seen_rows(
    whole: StreamRows,
    keys: Tensor,
    policy: ops.SpanPolicy,
    drawn: Sequence[tuple[Tensor, Tensor | None]],
    purpose: Purpose,
    site: int,
) -> Tensor:
    """Which rows are not left out: [rows] bool. Args: drawn: from `draws`."""
    rows = len(whole.values)
    seen = torch.ones(rows, dtype=torch.bool, device=keys.device)
    for rng, selected in drawn:
        found = ops.span_mask(
            whole.offsets, keys, rng, policy, rows=rows, site=site, purpose=purpose, selected=selected,
            capacity=None if keys.is_cpu else rows,
        )  # fmt: skip
        seen[found.indices[: int(found.count)].to(torch.int64)] = False
    return seen

"""Which word pieces LARE hides, and what a model is given in their place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memofast.data.batch import PackedBatch
from memofast.ops import TokenPolicy
from memofast.ops.philox import below, draw, rows_of
from memofast.ops.row_lists import threshold
from memofast.store.text_writer import PARTS_OF_SPEECH, POLARITIES

OTHER, NEUTRAL = PARTS_OF_SPEECH.index("other"), POLARITIES.index("neutral")


class HiddenPieces(NamedTuple):
    """token_ids, part_of_speech, polarity [rows] int32: what the model is given. hidden [rows] bool: pieces to be told;
    forced [rows] bool: those that are hidden because nothing else of their sentence is. sentences [B] int64: a further
    word of each."""

    token_ids: Tensor
    part_of_speech: Tensor
    polarity: Tensor
    hidden: Tensor
    forced: Tensor
    sentences: Tensor


def hidden_pieces(
    batch: PackedBatch,
    token_ids: Tensor,
    policy: TokenPolicy,
    probabilities: tuple[tuple[int, int], tuple[int, int]],
    selected: Tensor,
    key: tuple[Tensor, Tensor],
) -> HiddenPieces:
    """Hide pieces of the selected samples [B] bool: as [MASK] (80 %), a random piece (10 %), or as they are (10 %),
    which keeps their part of speech and polarity too; a sentence where none was drawn has its first one hidden.

    Args: token_ids [rows] int32; policy: [MASK] and random pieces; probabilities: of a neutral piece, and of another.
        key: of a purpose and site. Words of the draw at (row within the sample, block 0): the first decides whether a
        piece is hidden and how, the second gives the random piece; the first at (0, block 1) is the sentence's.
    """
    sample, position = rows_of(batch.text_offsets, token_ids.numel())
    zero = torch.zeros_like(position)
    words = draw(key, batch.sample_keys[sample], position, zero)
    sentences = draw(key, batch.sample_keys, zero[: batch.samples], zero[: batch.samples] + 1)[:, 0]
    speech, polarity = batch.targets["part_of_speech"], batch.targets["polarity"]
    limit = torch.where(polarity == NEUTRAL, *map(threshold, probabilities))
    inside = selected[sample] & (batch.word_ids >= 0)
    hidden = inside & (words[:, 0] < limit)
    drawn = torch.zeros(batch.samples, dtype=torch.int64, device=sample.device).index_add_(0, sample, hidden.long())
    forced = inside & (drawn == 0)[sample] & (position == 1)
    masked = forced | (hidden & (words[:, 0] < limit * 8 // 10))
    replaced = hidden & ~masked & (words[:, 0] < limit * 9 // 10)
    random = policy.random_low + below(words[:, 1], policy.random_high - policy.random_low)
    seen = torch.where(masked, policy.mask_id, torch.where(replaced, random, token_ids)).to(torch.int32)
    kept = ~(masked | replaced)
    return HiddenPieces(
        seen, speech.where(kept, OTHER), polarity.where(kept, NEUTRAL), hidden | forced, forced, sentences
    )

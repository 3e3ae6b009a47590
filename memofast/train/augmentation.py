"""What fine-tuning does not show the model: other feature rows and columns in every update, so that few samples are not learnt by heart.

Source: time and frequency masks of Park et al., "SpecAugment", Interspeech 2019; here columns need not be neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from memofast import ops
from memofast.data.batch import PackedBatch
from memofast.model.memobert.embeddings import FEATURE_MODALITIES
from memofast.ops import philox

SPAN = 5  # rows


@dataclass
class Shown:
    """What the model sees of a batch, and which feature row each row reads, -1 for the mask vector; of modalities left alone none."""

    batch: PackedBatch
    sources: dict[str, Tensor]


class Hiding:
    """Hides a share of face and speech rows behind the mask vector, in spans of `SPAN` (samples with fewer rows keep theirs), and sets each column
    of a sample's rows to 0, the mean of normalised ones, with probability `columns`."""

    def __init__(self, rows: float, columns: float):
        share = Fraction(rows).limit_denominator(1000)
        self._spans = ops.SpanPolicy("span", (share.numerator, share.denominator), SPAN) if share else None
        self._threshold = philox.drop_threshold(columns)

    def __call__(self, batch: PackedBatch, rng: Tensor) -> Shown:
        """Args: rng [2] int64, seed and update."""
        sources: dict[str, Tensor] = {}
        for place, modality in enumerate(FEATURE_MODALITIES):
            rows, offsets = getattr(batch, modality), getattr(batch, f"{modality}_offsets")
            if rows is None or not len(rows):
                continue
            if self._spans:
                enough = offsets.diff() >= SPAN
                sources[f"{modality}_source"] = ops.span_mask(
                    offsets, batch.sample_keys, rng, self._spans, rows=len(rows), site=place,
                    purpose=philox.Purpose.MASK, selected=enough,
                ).source  # fmt: skip
            if self._threshold:
                key = philox.stream_key(rng, philox.Purpose.MASK, len(FEATURE_MODALITIES) + place)
                kept = self._kept_columns(key, batch.sample_keys, rows.shape[1])
                sample, _ = philox.rows_of(offsets, len(rows))
                batch = replace(batch, **{modality: rows * kept[sample.clamp(max=batch.samples - 1)]})
        return Shown(batch, sources)

    def _kept_columns(self, key: tuple[Tensor, Tensor], sample_keys: Tensor, width: int) -> Tensor:
        """[B, width] bool; layout: position 0, block = column // 8, lane = column % 8."""
        blocks = torch.arange((width + 7) // 8, device=sample_keys.device)
        words = philox.draw(key, sample_keys[:, None], sample_keys.new_zeros(1), blocks)
        return philox.lanes16(words).flatten(-2)[:, :width] >= self._threshold

"""What fine-tuning does not show the model: other feature rows and columns in every update, so that few samples are not
learnt by heart.

Source: time and frequency masks of Park et al., "SpecAugment", Interspeech 2019; here columns need not be neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from memofast import ops
from memofast.data.batch import PackedBatch
from memofast.data.modality import FEATURES
from memofast.data.view import View
from memofast.ops import philox

SPAN = 5  # rows


class Augmentation:
    """Hides a share of face and speech rows behind the mask vector, in spans of `SPAN` (samples with fewer rows keep
    theirs), and sets each column of a sample's rows to 0, the mean of normalised ones, with probability `columns`."""

    def __init__(self, rows: float, columns: float):
        share = Fraction(rows).limit_denominator(1000)
        self._spans = ops.SpanPolicy("span", (share.numerator, share.denominator), SPAN) if share else None
        self._threshold = philox.drop_threshold(columns)

    def __call__(self, batch: PackedBatch, rng: Tensor) -> View:
        """What a model is shown of a batch. Args: rng [2] int64, seed and update."""
        view = View(batch)
        for place, modality in enumerate(FEATURES):
            rows, offsets = batch.rows_of(modality), batch.offsets_of(modality)
            if rows is None or not len(rows):
                continue
            if self._spans:
                view.sources[modality] = ops.span_mask(
                    offsets, batch.sample_keys, rng, self._spans, rows=len(rows), site=place,
                    purpose=philox.Purpose.MASK, selected=offsets.diff() >= SPAN,
                ).source  # fmt: skip
            if self._threshold:
                key = philox.stream_key(rng, philox.Purpose.MASK, len(FEATURES) + place)
                kept = self._kept_columns(key, batch.sample_keys, rows.shape[1])
                sample, _ = philox.rows_of(offsets, len(rows))
                shown = rows * kept[sample.clamp(max=batch.samples - 1)]
                view.batch = replace(view.batch, **{modality: shown})
        return view

    def _kept_columns(self, key: tuple[Tensor, Tensor], sample_keys: Tensor, width: int) -> Tensor:
        """[B, width] bool; layout: position 0, block = column // 8, lane = column % 8."""
        blocks = torch.arange((width + 7) // 8, device=sample_keys.device)
        words = philox.draw(key, sample_keys[:, None], sample_keys.new_zeros(1), blocks)
        return philox.lanes16(words).flatten(-2)[:, :width] >= self._threshold

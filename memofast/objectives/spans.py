"""Rows of faces and speech that are hidden: which ones, by policy, and where they are read."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from memofast import ops
from memofast.data.batch import Capacity, PackedBatch
from memofast.data.facts import Facts
from memofast.data.view import Read, View
from memofast.objectives.objective import Objective, ObjectiveOptions, Room
from memofast.objectives.ratios import Ratio
from memofast.ops.philox import Purpose

_OF_POLICY = {"ratio", "length", "dice", "original"}  # options that are fields of `ops.SpanPolicy`
_LONGEST_MIXED_SPAN = {"visual": 5, "speech": 6}


class SpanOptions(ObjectiveOptions):
    """Fields of `ops.SpanPolicy`; policy: its kind. ratio: None: 3/20, for spans of faces 1/5. length: None: 3, of
    `mixed` spans 5 for faces and 6 for speech."""

    policy: Literal["span", "independent", "single_span", "mixed"] = "span"
    ratio: Ratio | None = None
    length: int | None = Field(None, ge=1, le=2**15)
    dice: bool = False
    original: bool = False

    @model_validator(mode="after")
    def _all_takes_effect(self) -> SpanOptions:
        if self.ratio and not self.ratio[0]:
            raise ValueError("ratio 0 hides nothing; leave the objective out")
        idle = {
            "ratio": self.ratio is not None and self.policy == "mixed",
            "length": self.length is not None and self.policy in ("independent", "single_span"),
            "dice": self.dice and self.policy in ("independent", "single_span"),
            "original": self.original and self.policy == "independent",
        }
        for name in filter(idle.get, idle):
            raise ValueError(f"{name} has no effect with policy {self.policy}; leave it out")
        return self

    def span_policy(self, modality: str) -> ops.SpanPolicy:
        found: dict[str, Any] = {}
        if modality == "speech" or self.policy == "independent":
            found["ratio"] = (3, 20)
        if self.policy == "mixed":
            found["length"] = _LONGEST_MIXED_SPAN[modality]
        given = self.model_dump(include=_OF_POLICY, exclude_none=True)
        return ops.SpanPolicy(kind=self.policy, **{**found, **given})


class MaskedFeatures(Objective):
    """Hides feature rows of one modality, by `mask`; what is predicted there, subclasses say. Labels of its reads are
    the rows within the modality.

    Source: MEmoBERT's mspan* and mr* tasks.
    """

    Options = SpanOptions
    modality: ClassVar[str]
    head: ClassVar[str]

    def __init__(self, name: str, options: SpanOptions):
        super().__init__(name, options)
        self.policy = options.span_policy(self.modality)

    @property
    def needs(self) -> tuple[str, ...]:
        return (f"{self.modality} rows",)

    def eligible(self, facts: Facts) -> np.ndarray:
        return facts.rows(self.modality) >= 1

    def can_be_of(self, batch: PackedBatch) -> bool:
        return batch.rows_of(self.modality) is not None

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch = first.batch
        if batch.rows_of(self.modality) is None:
            nothing = torch.zeros(0, dtype=torch.int64, device=batch.offsets.device)
            first.reads[self.name] = Read(self.head, nothing, nothing)
            return []
        source, rows = self.mask(batch, selected, rng, purpose)
        first.sources[self.modality] = merged_sources(first.sources.get(self.modality), source)
        first.reads[self.name] = Read(self.head, batch.joint_rows(self.modality, rows), rows.to(torch.int64))
        return []

    def mask(self, batch: PackedBatch, selected: Tensor, rng: Tensor, purpose: Purpose) -> tuple[Tensor, Tensor]:
        """Sources [rows] int32 of the modality, see `ops.MaskedRows`, and the rows hidden [n] int32, ascending, in the
        selected samples [B] bool."""
        features = batch.rows_of(self.modality)
        masked = ops.span_mask(
            batch.offsets_of(self.modality),
            batch.sample_keys,
            rng,
            self.policy,
            rows=features.shape[0],
            site=self.site,
            purpose=purpose,
            selected=selected,
            capacity=None if features.is_cpu else features.shape[0],
        )
        return masked.source, masked.indices[: int(masked.count)]

    def room(self, capacity: Capacity) -> list[Room]:
        return [Room(capacity, self.policy.capacity(capacity.of(self.modality), capacity.samples))]


def merged_sources(before: Tensor | None, source: Tensor) -> Tensor:
    """Sources of two objectives [rows] int32. They select disjoint samples, so that at most one of two entries differs
    from the row itself."""
    own = torch.arange(source.shape[0], dtype=torch.int32, device=source.device)
    return source if before is None else before + source - own

"""The packed batch: a run of rows per modality and an offset array for each, with no padding anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Capacity:
    """Upper limits of a batch; the sampler never exceeds any of them."""

    samples: int
    text: int
    visual: int
    speech: int

    @property
    def rows(self) -> int:
        return self.text + self.visual + self.speech


@dataclass
class PackedBatch:
    """B samples, their rows packed per modality; the joint sequence of a sample is `text, visual, speech`.

    token_ids, word_ids [sum T] int32: WordPiece ids with [CLS] and [SEP]; index of the word in its sentence, -1 at special tokens.
    visual [sum V, Dv], speech [sum S, Ds] bf16/fp16/fp32: feature rows, width a multiple of 8; None where the corpus has none.
    text_offsets, visual_offsets, speech_offsets, offsets [B+1] int32: first row of each sample, per modality and jointly.
    sample_keys [B] int64: stable hash of the sample id, the random numbers' name for the sample.
    targets: labels per sample, soft labels per visual row (`soft_labels` [sum V, classes]), lexicon classes per token (`lexicon` [sum T] int32).
    ids: sample ids, for messages; None where they were not kept.
    """

    token_ids: Tensor
    word_ids: Tensor
    text_offsets: Tensor
    visual_offsets: Tensor
    speech_offsets: Tensor
    offsets: Tensor
    sample_keys: Tensor
    visual: Tensor | None = None
    speech: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    ids: list[str] | None = None

    @property
    def samples(self) -> int:
        return self.sample_keys.numel()

    @property
    def rows(self) -> int:
        """Packed rows of the joint sequence, unused capacity included."""
        features = sum(rows.shape[0] for rows in (self.visual, self.speech) if rows is not None)
        return self.token_ids.shape[0] + features

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        moved = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        targets = {name: value.to(device, non_blocking=non_blocking) for name, value in self.targets.items()}
        return replace(self, **moved, targets=targets)

    def pin_memory(self) -> PackedBatch:
        pinned = {
            f.name: value.pin_memory() for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **pinned, targets={name: value.pin_memory() for name, value in self.targets.items()})

    def joint_rows(self, modality: str, rows: Tensor) -> Tensor:
        """Where rows of one modality lie in the joint sequence.

        Args: modality `text`, `visual` or `speech`; rows [M] int32, indices into that modality's rows.
        Returns: [M] int64. Rows past the modality's last offset map to the joint sequence's last row.
        """
        own = getattr(self, f"{modality}_offsets").to(torch.int64)
        rows = rows.to(torch.int64)
        sample = torch.searchsorted(own[1:], rows, right=True).clamp(max=max(self.samples - 1, 0))
        before = torch.zeros_like(own[:-1])
        for name in ("text", "visual", "speech")[: ("text", "visual", "speech").index(modality)]:
            lengths = getattr(self, f"{name}_offsets").to(torch.int64)
            before = before + lengths[1:] - lengths[:-1]
        joint = self.offsets.to(torch.int64)[sample] + before[sample] + rows - own[sample]
        return joint.clamp(max=max(self.rows - 1, 0))

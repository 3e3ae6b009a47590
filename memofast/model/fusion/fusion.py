"""What every fusion is given and gives back, and what stands for the modalities that a sample lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from memofast.model.draws import Draws
from memofast.sections import Section

ORIGINAL_ORDER = ("text", "speech", "visual")
"""In which originals put modalities side by side."""
SORTED_ORDER = ("speech", "text", "visual")
"""In which some of them do, by their letters A, T and V."""

_INITIAL = 0.02  # standard deviation of placeholders


class FusionOptions(Section):
    """Options of a fusion beside its `kind`."""


class CompatOptions(FusionOptions):
    """compat: compute as the original does, attention over the samples of a batch and all, to repeat its numbers;
    without it what a sample gives does not depend on the batch."""

    compat: bool = False


@dataclass(frozen=True)
class Fused:
    """vector [B, width]. losses: by name in `Fusion.losses`: of each sample [B], or one that compares the samples of a
    batch, a scalar."""

    vector: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class Fusion(nn.Module):
    """Joins vectors of modalities. A subclass is made as `Fusion(options, widths)`, by `kinds.build`.

    modalities: in the order that they were given in. widths: of the vectors by modality. width: of what it makes of
    them. losses: weight of each loss that it is learnt by, by name. least: modalities that it needs. order: of
    modalities with compat.
    """

    least: ClassVar[int] = 1
    order: ClassVar[tuple[str, ...]] = ORIGINAL_ORDER
    width: int
    losses: Mapping[str, float] = {}

    def __init__(self, widths: Mapping[str, int], *, compat: bool = False, placeholders: bool = True):
        """Args: placeholders: whether a learnt vector stands for each modality that is missing; else the subclass says
        what does."""
        super().__init__()
        self.widths = {name: widths[name] for name in self.order if name in widths} if compat else dict(widths)
        self.modalities = tuple(widths)
        self.placeholders = nn.ParameterDict()
        if placeholders:
            for name, width in self.widths.items():
                self.placeholders[name] = nn.Parameter(nn.init.normal_(torch.empty(1, width), std=_INITIAL))

    def forward(self, vectors: Mapping[str, Tensor], present: Tensor, draws: Draws) -> Fused:
        """Args: vectors [B, width] by modality, of any values where it is missing. present [B, modalities] bool, in the
        order of `modalities`. draws: for dropout and noise.

        Raises: `ValueError` for `present` of another shape, or a modality without vectors.
        """
        if lacking := [name for name in self.widths if name not in vectors]:
            raise ValueError(f"a fusion of {', '.join(self.modalities)} needs vectors of {lacking[0]}")
        samples = len(next(iter(vectors.values())))
        if present.shape != (samples, len(self.modalities)) or present.dtype != torch.bool:
            raise ValueError(
                f"present must be [{samples}, {len(self.modalities)}] bool (samples, modalities), got "
                f"{list(present.shape)} {present.dtype}"
            )
        there = {name: present[:, place, None] for place, name in enumerate(self.modalities)}
        filled = {name: vectors[name] for name in self.widths}
        for name, placeholder in self.placeholders.items():
            filled[name] = torch.where(there[name], filled[name], placeholder)
        return self.fuse(filled, there, draws)

    def fuse(self, vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], draws: Draws) -> Fused:
        """Args: vectors [B, width] of all modalities of `widths`, what is missing filled in. there [B, 1] bool: which
        are the sample's own."""
        raise NotImplementedError


def side_by_side(vectors: Mapping[str, Tensor]) -> Tensor:
    """[B, sum of widths]."""
    return torch.cat(list(vectors.values()), 1)

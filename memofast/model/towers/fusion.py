"""How the vectors of the towers are joined; a further way is a class and its options in `FUSIONS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from memofast.model.sequence.draws import Draws
from memofast.sections import Section, checked


class ConcatenationOptions(Section):
    """The vectors one after the other, text, visual, speech."""

    kind: Literal["concat"] = "concat"


class Concatenation(nn.Module):
    """Args: widths: of each modality's vector, in the order in which they are joined. width: of what comes out."""

    def __init__(self, options: ConcatenationOptions, widths: Mapping[str, int]):
        super().__init__()
        self.order, self.width = tuple(widths), sum(widths.values())

    def forward(self, vectors: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """Args: vectors [B, width] by modality, a learned one where a sample lacks it; draws: of dropout, which is none
        here. Returns: [B, width]."""
        return torch.cat([vectors[name] for name in self.order], 1)


FUSIONS: dict[str, tuple[type[Section], type[nn.Module]]] = {"concat": (ConcatenationOptions, Concatenation)}
Fusion = ConcatenationOptions  # a union of their options by `kind`, once there are several


def fusion_of(section: Mapping[str, Any], widths: Mapping[str, int]) -> nn.Module:
    """The module that a configuration names. Raises: `MemofastError` for an unknown kind, or wrong options."""
    options = checked(dict(section), "config.json, fusion", Fusion)
    return FUSIONS[options.kind][1](options, widths)

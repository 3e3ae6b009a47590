"""The fusions there are, by kind, and how one is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag

from memofast.errors import MemofastError
from memofast.model.fusion.attending import CrossAttention, CrossAttentionOptions, SelfAttention, SelfAttentionOptions
from memofast.model.fusion.disentangling import Disentangled, DisentangledOptions
from memofast.model.fusion.experts import (
    ExpertFusion,
    ExpertFusionOptions,
    FusionExperts,
    FusionExpertsBase,
    ModalityExperts,
    ModalityExpertsOptions,
    TextGuidedExperts,
    TextGuidedOptions,
)
from memofast.model.fusion.fusion import Fusion, FusionOptions
from memofast.model.fusion.gates import (
    AdaptationGate,
    AdaptationGateOptions,
    ModalityShifting,
    ModalityShiftingOptions,
)
from memofast.model.fusion.products import LowRank, LowRankOptions, TensorOptions, TensorProduct
from memofast.model.fusion.side_by_side import Concat, ConcatOptions, Mean, MeanOptions

_SINGLE: dict[str, tuple[type[FusionOptions], type[Fusion]]] = {
    "concat": (ConcatOptions, Concat),
    "mean": (MeanOptions, Mean),
    "adaptation_gate": (AdaptationGateOptions, AdaptationGate),
    "modality_shifting": (ModalityShiftingOptions, ModalityShifting),
    "low_rank": (LowRankOptions, LowRank),
    "tensor": (TensorOptions, TensorProduct),
    "self_attention": (SelfAttentionOptions, SelfAttention),
    "cross_attention": (CrossAttentionOptions, CrossAttention),
}


def _kind(values: Any) -> str:
    """The kind that a section names; concat where it names none."""
    if isinstance(values, dict):
        return str(values.get("kind", "concat"))
    return getattr(values, "kind", "concat")  # what is no section is refused as one of it


SingleOptions = Annotated[
    Union[*(Annotated[options, Tag(kind)] for kind, (options, _) in _SINGLE.items())], Discriminator(_kind)
]


class FusionExpertsOptions(FusionExpertsBase):
    """Of `FusionExperts`. experts: the fusions, as sections of their own."""

    kind: Literal["fusion_experts"]
    experts: Annotated[list[SingleOptions], Field(min_length=1, max_length=256)]


FUSIONS: dict[str, tuple[type[FusionOptions], type[Fusion]]] = {
    **_SINGLE,
    "experts": (ExpertFusionOptions, ExpertFusion),
    "modality_experts": (ModalityExpertsOptions, ModalityExperts),
    "fusion_experts": (FusionExpertsOptions, FusionExperts),
    "text_guided_experts": (TextGuidedOptions, TextGuidedExperts),
    "disentangled": (DisentangledOptions, Disentangled),
}

Options = Annotated[
    Union[*(Annotated[options, Tag(kind)] for kind, (options, _) in FUSIONS.items())], Discriminator(_kind)
]


def build(options: FusionOptions, widths: Mapping[str, int]) -> Fusion:
    """A fusion with random weights. widths: of the vectors by modality.

    Raises: `MemofastError` for fewer modalities than it fuses, without its main one, and for heads that do not divide
    the width that they are of.
    """
    fusion = FUSIONS[options.kind][1]
    if len(widths) < fusion.least:
        raise MemofastError(
            f"fusion {options.kind} joins at least {fusion.least} modalities, the model reads {', '.join(widths)} "
            "alone; choose concat, or read more"
        )
    main = getattr(options, "main", None)
    if main is not None and main not in widths:
        raise MemofastError(
            f"fusion.main {main} of {options.kind} is not read; set it to one of {', '.join(widths)}, or read it"
        )
    if isinstance(options, FusionExpertsOptions):
        return FusionExperts(options, widths, [build(expert, widths) for expert in options.experts])
    return fusion(options, widths)

"""What a recipe may say of the masked auto-encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import Field, model_validator

from memofast.model.memobert.configuration import MemoBertConfig
from memofast.objectives.objective import ObjectiveOptions
from memofast.objectives.ratios import Ratio
from memofast.sections import Section


class DecoderSizes(Section):
    """Of the decoder's layers; the defaults are MEmoBERT's."""

    hidden_size: int = Field(512, ge=8, le=2**14)
    num_hidden_layers: int = Field(8, ge=1, le=100)
    num_attention_heads: int = Field(8, ge=1, le=1000)
    intermediate_size: int = Field(2048, ge=1, le=2**16)

    @model_validator(mode="after")
    def _layers_can_be(self) -> DecoderSizes:
        MemoBertConfig(**self.model_dump())
        return self


class AutoencodingOptions(ObjectiveOptions):
    """ratio: of a sample's feature rows that are left out, each (`independent`) or in spans of `length` rows. masks:
    how many masks a sample has, of which every update takes one; None: another one every time. loss: as of
    `span_visual_regression`."""

    policy: Literal["independent", "span"] = "independent"
    ratio: Ratio = (9, 10)
    length: int | None = Field(None, ge=1, le=2**15)
    masks: int | None = Field(None, ge=1, le=1000)
    loss: Literal["mse", "cosine", "l1"] = "mse"
    decoder: DecoderSizes = DecoderSizes()

    @model_validator(mode="after")
    def _all_takes_effect(self) -> AutoencodingOptions:
        if not self.ratio[0]:
            raise ValueError("ratio 0 leaves nothing out; leave the objective out")
        if self.length is not None and self.policy == "independent":
            raise ValueError("length has no effect with policy independent; leave it out")
        return self


class Sizes(Protocol):
    """What the objective asks of the model's configuration."""

    hidden_size: int

    @property
    def longest(self) -> Mapping[str, int]: ...

    def feature_width(self, modality: str) -> int: ...

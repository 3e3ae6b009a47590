"""What a recipe says of low-rank adapters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from memofast.sections import Section

Rank = Annotated[int, Field(ge=1, le=2**14)]
Alpha = Annotated[int, Field(ge=1, le=2**20)]
Layer = Annotated[int, Field(ge=0, le=1000)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


class LoraSection(Section):
    """Low-rank adapters on an encoder that keeps its weights. Every entry but `dtype` is one of `peft.LoraConfig`, see
    there; None: peft's own default, which the plan of a run tells.

    target_modules: names of linear maps as they end, a pattern of whole names, or `all-linear`. dtype: in which the
    finished model keeps adapters and head; they are trained in fp32.
    """

    target_modules: Annotated[list[Name], Field(min_length=1)] | Name
    exclude_modules: Annotated[list[Name], Field(min_length=1)] | Name | None = None
    r: Rank | None = None
    lora_alpha: Alpha | None = None
    lora_dropout: Annotated[float, Field(ge=0, le=0.99)] | None = None
    bias: Literal["none", "all", "lora_only"] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] | None = None
    layers_to_transform: Annotated[list[Layer], Field(min_length=1)] | Layer | None = None
    layers_pattern: list[Name] | Name | None = None
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    def options(self) -> dict[str, Any]:
        """What is said to peft."""
        return self.model_dump(exclude_none=True, exclude={"dtype"})

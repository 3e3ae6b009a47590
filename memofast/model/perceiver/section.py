"""What a recipe says of a multimodal Perceiver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.folder import model_folder
from memofast.model.perceiver.configuration import LABEL_HEADS, POOLINGS
from memofast.sections import FilePath, Section

Frames = Annotated[int, Field(ge=1, le=1024)]


class PerceiverSection(Section):
    """Entries of `PerceiverEmotionConfig`; None: the checkpoint's value, else the published one, and of pictures and
    sound what the corpus keeps.

    init: folder of a transformers PerceiverForMultimodalAutoencoding, of a Perceiver of this package or of a run; None:
    random weights. replace_labels: whether the label's outputs begin anew where the checkpoint names other classes,
    which is refused otherwise.
    """

    family: Literal["perceiver"]
    init: FilePath | None = None
    replace_labels: bool = False
    num_latents: Width | None = None
    d_latents: Annotated[Width, Field(multiple_of=8)] | None = None
    d_model: Width | None = None
    num_blocks: Layers | None = None
    num_self_attends_per_block: Layers | None = None
    num_self_attention_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    self_attention_widening_factor: Annotated[int, Field(ge=1, le=64)] | None = None
    cross_attention_widening_factor: Annotated[int, Field(ge=1, le=64)] | None = None
    attention_probs_dropout_prob: Dropout | None = None
    num_frames: Frames | None = None
    samples_per_patch: Annotated[int, Field(ge=1, le=4096)] | None = None
    output_num_channels: Annotated[Width, Field(ge=2)] | None = None
    initializer_range: Annotated[float, Field(gt=0, le=10)] | None = None
    label_head: Literal[LABEL_HEADS] | None = None
    head_dropout_prob: Dropout | None = None
    hop: Frames | None = None
    pooling: Literal[POOLINGS] | None = None

    @field_validator("init")
    @classmethod
    def _of_run(cls, init: str | None) -> str | None:
        return str(model_folder(Path(init))) if init else None

    def entries(self) -> dict[str, Any]:
        """What the recipe says about `PerceiverEmotionConfig`."""
        return self.model_dump(exclude_none=True, exclude={"family", "init", "replace_labels"})

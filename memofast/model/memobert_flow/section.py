"""What a recipe says of a MemoBert-flow model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from memofast.model.adapters.section import LoraSection
from memofast.model.memobert.configuration import EMOTION_HEADS
from memofast.model.memobert.section import MemoBertSection, check_lora
from memofast.model.memobert_flow.configuration import MemoBertFlowConfig
from memofast.model.memobert_flow.sound_networks import NETWORKS
from memofast.sections import FilePath, Section

if TYPE_CHECKING:
    from typing import Self

OwnLayers = Annotated[int, Field(ge=0, le=1000)]
Encoder = Literal["text", "visual", "speech"]


class SoundSection(Section):
    """A network that makes rows of speech, trained along.

    network: `wav2vec2` or a small `waveform` network, of sound as `prepare --speech raw` keeps it, or `compare`, of
    ComParE frames as `prepare --speech compare,stack=8` keeps them; None: that of model.init. init: folder of the
    wav2vec 2.0 to begin with; the others begin with random weights.
    """

    network: Literal[NETWORKS] | None = None
    init: FilePath | None = None


class MemoBertFlowSection(MemoBertSection):
    """Entries of `MemoBertFlowConfig`, as `MemoBertSection`; num_hidden_layers and num_attention_heads are those of the
    cross encoder. init: folder of a BERT, of which text_layers evenly spaced ones begin the text encoder, or of a
    MemoBert-flow or a run of one; None: random weights.

    sound: how stored sound becomes rows; None: they come ready, or as model.init makes them. freeze: encoders of
    modalities that keep their weights, with the embeddings of text, and the networks of raw rows; rows are still
    projected to the model's width by weights that learn.
    """

    _no_entries: ClassVar[set[str]] = MemoBertSection._no_entries | {"sound", "freeze"}

    family: Literal["memobert-flow"]
    text_layers: OwnLayers | None = None
    visual_layers: OwnLayers | None = None
    speech_layers: OwnLayers | None = None
    unimodal_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    flow_types: bool | None = None
    sound: SoundSection | None = None
    freeze: list[Encoder] = Field([])

    @field_validator("freeze")
    @classmethod
    def _each_once(cls, freeze: list[str]) -> list[str]:
        if len(set(freeze)) < len(freeze):
            raise ValueError("names an encoder twice")
        return freeze

    def spelt_out(self, config: MemoBertFlowConfig) -> Self:
        found = super().spelt_out(config)
        if config.sound:
            begun = self.sound.init if self.sound else None
            found.sound = SoundSection(network=config.sound["network"], init=begun and str(Path(begun).resolve()))
        return found


class MemoBertFlowEmotionSection(MemoBertFlowSection):
    """Entries of `MemoBertFlowConfig`, see `MemoBertFlowSection`. head: as of `MemoBertEmotionSection`, and lora.
    freeze: also `all`: everything but the head."""

    _no_entries: ClassVar[set[str]] = MemoBertFlowSection._no_entries | {"head", "lora"}

    head: Literal[EMOTION_HEADS] = "vqa"
    freeze: list[Encoder] | Literal["all"] = Field([])
    lora: LoraSection | None = None

    @model_validator(mode="after")
    def _adapts_something(self) -> MemoBertFlowEmotionSection:
        check_lora(self.lora, self.init, self.freeze)
        return self

    @field_validator("freeze")
    @classmethod
    def _each_once(cls, freeze: list[str] | str) -> list[str] | str:
        return freeze if isinstance(freeze, str) else MemoBertFlowSection._each_once(freeze)

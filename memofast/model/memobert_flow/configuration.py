"""The configuration of every MemoBert-flow model."""

from __future__ import annotations

from inspect import signature
from typing import Any

from memofast.data.modality import MODALITIES
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert_flow.sound_networks import HEARS_SOUND, stored_width, width_of


class MemoBertFlowConfig(MemoBertConfig):
    """Sizes of three encoders and of the cross encoder over their rows; what is not named here is as in
    `MemoBertConfig`.

    num_hidden_layers, num_attention_heads: of the cross encoder. text_layers, visual_layers, speech_layers: of the
    encoder of each modality, which all have unimodal_heads heads.
    flow_types: whether a learned row of each modality is added to what its encoder gives.
    sound: entries of a network that makes the rows of speech, see `sound_networks`, and sets speech_width; None: rows
    come ready.

    Raises `ValueError` as `MemoBertConfig`.

    Source: MEmoBERT's uniter3flow, of which nothing was published.
    """

    model_type = "memobert-flow"

    def __init__(
        self,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 8,
        text_layers: int = 12,
        visual_layers: int = 4,
        speech_layers: int = 4,
        unimodal_heads: int = 12,
        flow_types: bool = True,
        sound: dict[str, Any] | None = None,
        **kwargs,
    ):
        super().__init__(num_hidden_layers=num_hidden_layers, num_attention_heads=num_attention_heads, **kwargs)
        if unimodal_heads < 1 or self.hidden_size % unimodal_heads or self.hidden_size // unimodal_heads % 8:
            raise ValueError(
                f"hidden_size {self.hidden_size} with unimodal_heads {unimodal_heads} makes no heads whose width is a "
                "multiple of 8"
            )
        self.text_layers = text_layers
        self.visual_layers = visual_layers
        self.speech_layers = speech_layers
        self.unimodal_heads = unimodal_heads
        self.flow_types = flow_types
        self.sound = sound if self.speech_width else None
        if self.sound:
            self.speech_width = width_of(self.sound)

    @property
    def entries(self) -> dict[str, Any]:
        """All that it was made of, without what transformers adds."""
        named = {**signature(MemoBertConfig.__init__).parameters, **signature(type(self).__init__).parameters}
        return {name: getattr(self, name) for name in named if name not in ("self", "kwargs")}

    def layers_of(self, modality: str) -> int:
        """Layers of the encoder of one modality; 0 where the model has none."""
        there = modality == "text" or self.feature_width(modality)
        return getattr(self, f"{modality}_layers") if there else 0

    @property
    def layers(self) -> int:
        return self.num_hidden_layers + sum(map(self.layers_of, MODALITIES))

    @property
    def head_counts(self) -> tuple[int, ...]:
        return self.num_attention_heads, self.unimodal_heads

    @property
    def reads(self) -> dict[str, int]:
        """As `family.Reader.reads`."""
        return super().reads | ({"speech": stored_width(self.sound)} if self.sound else {})

    @property
    def raw(self) -> frozenset[str]:
        """As `family.Reader.raw`."""
        hears = bool(self.sound) and self.sound["network"] in HEARS_SOUND
        return super().raw | (frozenset(["speech"]) if hears else frozenset())

    @property
    def made(self) -> frozenset[str]:
        return super().made | frozenset(["speech"] if self.sound else [])

    @property
    def told_by_neighbours(self) -> frozenset[str]:
        wide = bool(self.sound) and self.sound["network"] != "waveform"
        return super().told_by_neighbours | frozenset(["speech"] if wide else [])

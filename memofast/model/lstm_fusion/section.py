"""What a recipe says of an LSTM fusion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from memofast.model.bounds import Dropout, Layers, Width
from memofast.sections import Section


class LstmFusionSection(Section):
    """Entries of `LstmFusionConfig`. inputs: names of the feature modalities and streams that are read; None: all that
    the corpus has.

    init: must be null: there is no pre-training for it.
    """

    family: Literal["lstm_fusion"]
    init: None = None
    inputs: list[str] | None = Field(None, min_length=1)
    hidden_size: Width = 64
    num_hidden_layers: Layers = 1
    hidden_dropout_prob: Dropout = 0.1

    @field_validator("inputs")
    @classmethod
    def _each_once(cls, inputs: list[str] | None) -> list[str] | None:
        if inputs and len(set(inputs)) < len(inputs):
            raise ValueError("names an input twice")
        return inputs

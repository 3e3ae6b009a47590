"""What a recipe says of an LSTM fusion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from memofast.sections import Section


class LstmFusionSection(Section):
    """Entries of `LstmFusionConfig`. inputs: names of the feature modalities and streams that are read; None: all that
    the corpus has.

    init: must be null: there is no pre-training for it.
    """

    family: Literal["lstm_fusion"]
    init: None = None
    inputs: list[str] | None = Field(None, min_length=1)
    hidden_size: int = Field(64, gt=0)
    num_hidden_layers: int = Field(1, gt=0)
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)

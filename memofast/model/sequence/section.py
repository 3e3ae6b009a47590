"""What a recipe says of a network over rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from memofast.model.bounds import Width, Words
from memofast.model.sequence.networks import Options
from memofast.model.sequence.recurrent_fusion import RecurrentFusionOptions
from memofast.sections import FilePath, Section


class SequenceSection(Section):
    """network: which, and its options. inputs: by modality the store or stream whose rows are read as it; None: the
    corpus's visual and speech rows, and the one stream that it has of text.

    init: folder of a BERT that reads the word pieces in place of rows of text. embedding: width of a table of word
    pieces that is learnt from nothing, of vocab_size entries, in their place. standardise: read columns of rows as (x -
    mean) / std of the `training` samples' rows, or as they are stored (`none`).
    """

    family: Literal["sequence"]
    init: FilePath | None = None
    network: Options = RecurrentFusionOptions()
    inputs: dict[Literal["text", "visual", "speech"], str] | None = Field(None, min_length=1)
    embedding: Width | None = None
    vocab_size: Words = 30522
    standardise: Literal["training", "none"] = "training"

    @model_validator(mode="after")
    def _one_source_of_text(self) -> SequenceSection:
        if self.init and self.embedding:
            raise ValueError("init and embedding both read word pieces; leave one out")
        if (self.init or self.embedding) and "text" in (self.inputs or {}):
            raise ValueError("inputs.text names rows, but init or embedding reads word pieces; leave one out")
        if self.network.compat and self.standardise != "none":
            raise ValueError("network.compat reads columns as they are stored; set standardise=none")
        return self

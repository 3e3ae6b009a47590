"""What a model folder's `config.json` may say, checked before a model of it takes memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from memofast.data.dialogue import Context
from memofast.model.face_networks.network import PARTS, WIDTHS
from memofast.model.folder import ConfigFile, read_checked
from memofast.model.heads import Head
from memofast.model.memobert.configuration import EMOTION_HEADS, POSITION_ENCODINGS

Words = Annotated[int, Field(ge=1, le=2**21)]
Size = Annotated[int, Field(ge=1, le=2**18)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Rows = Annotated[int, Field(ge=1, le=2**16)]
Width = Annotated[int, Field(ge=0, le=2**18)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Token = Annotated[int, Field(ge=0, lt=2**21)]
Side = Annotated[int, Field(ge=16, le=512)]
Classes = Annotated[int, Field(ge=1, le=2**16)]


class BertFile(ConfigFile):
    """What is read of a transformers BERT."""

    vocab_size: Words = 30522
    hidden_size: Size = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Annotated[int, Field(ge=1, le=2**12)] = 12
    intermediate_size: Size = 3072
    hidden_dropout_prob: Share = 0.1
    attention_probs_dropout_prob: Share = 0.1
    max_position_embeddings: Rows = 512
    initializer_range: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.02
    layer_norm_eps: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1e-12
    pad_token_id: Token | None = None
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"

    @model_validator(mode="after")
    def _heads_divide(self) -> BertFile:
        width, heads = self.hidden_size, self.num_attention_heads
        if width % heads or width // heads % 8:
            raise ValueError(
                f"hidden_size {width} with num_attention_heads {heads} makes no heads whose width is a multiple of 8"
            )
        return self


class FaceFile(ConfigFile):
    """Entries of a `FaceNetwork`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    network: Literal[tuple(WIDTHS)]
    crop: Side
    side: Side
    mean: Annotated[float, Field(ge=0, le=255, allow_inf_nan=False)]
    std: Annotated[float, Field(gt=0, le=255, allow_inf_nan=False)]
    frozen: Annotated[int, Field(ge=0, le=max(PARTS.values()))] = 0
    augment: bool = True
    noise: Annotated[float, Field(ge=0, le=128, allow_inf_nan=False)] = 0.0


class MemoBertFile(BertFile):
    """What is read of a MemoBert."""

    visual_width: Width = 342
    speech_width: Width = 768
    visual_positions: Rows = 512
    speech_positions: Rows = 512
    position_encoding: Literal[POSITION_ENCODINGS] = "learned"
    projection_block: bool = False
    shared_types: bool = False
    face: FaceFile | None = None
    visual_classes: Classes = 8
    heads: dict[str, dict[str, str | int]] | None = None
    tables: dict[str, Annotated[int, Field(ge=1, le=2**16)]] | None = None
    mask_token_id: Token = 103
    emotion_head: Literal[EMOTION_HEADS] = "emocls"
    problem_type: str | None = None
    prompt: dict[str, Any] | None = None
    context: Context | None = None
    id2label: dict[str, str] | None = None

    @field_validator("heads")
    @classmethod
    def _are_heads(cls, heads: dict | None) -> dict | None:
        for name, values in (heads or {}).items():
            try:
                head = Head(**values)
            except TypeError:
                raise ValueError(f"{name} is no head: kind, modality and outputs") from None
            if not name.isidentifier() or not isinstance(head.outputs, int) or not 0 <= head.outputs <= 2**16:
                raise ValueError(f"{name} is no head with 0 to {2**16} outputs")
        return heads

    @field_validator("tables")
    @classmethod
    def _are_tables(cls, tables: dict[str, int] | None) -> dict[str, int] | None:
        if odd := [name for name in tables or {} if not name.isidentifier()]:
            raise ValueError(f"{odd[0]!r} is no name of a table")
        return tables

    @field_validator("id2label")
    @classmethod
    def _numbers_every_class(cls, names: dict[str, str] | None) -> dict[str, str] | None:
        if names is not None and set(names) != {str(number) for number in range(len(names))}:
            raise ValueError(f"numbers its {len(names)} classes other than from 0 on")
        return names


_KINDS = {"bert": BertFile, "memobert": MemoBertFile}


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a BERT or MemoBert folder. Raises: as `read_checked`."""
    return read_checked(folder, _KINDS)

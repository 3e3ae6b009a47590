"""What the `config.json` of a MemoBert-flow's folder may say, checked before a model of it takes memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from memofast.errors import MemofastError
from memofast.model.folder import ConfigFile, model_type, read_checked
from memofast.model.memobert.folder_config import BertFile, MemoBertFile
from memofast.model.memobert_flow.sound_networks import NETWORKS, STRETCH
from memofast.sections import checked

_FIELD = 400  # samples that a row of wav2vec 2.0 is made of
Own = Annotated[int, Field(ge=0, le=1000)]
Heads = Annotated[int, Field(ge=1, le=2**12)]
Wide = Annotated[int, Field(ge=1, le=2**13)]
Step = Annotated[int, Field(ge=1, le=64)]


class Wav2Vec2File(ConfigFile):
    """What is read of a transformers wav2vec 2.0; entries that other sizes would need are refused."""

    hidden_size: Annotated[int, Field(ge=8, le=2**13)] = 768
    num_hidden_layers: Annotated[int, Field(ge=1, le=200)] = 12
    num_attention_heads: Heads = 12
    intermediate_size: Annotated[int, Field(ge=1, le=2**15)] = 3072
    hidden_act: Literal["gelu"] = "gelu"
    feat_extract_activation: Literal["gelu"] = "gelu"
    feat_extract_norm: Literal["group", "layer"] = "group"
    conv_dim: list[Wide] = Field([512] * 7, min_length=1, max_length=16)
    conv_stride: list[Step] = Field([5, 2, 2, 2, 2, 2, 2], min_length=1, max_length=16)
    conv_kernel: list[Step] = Field([10, 3, 3, 3, 3, 2, 2], min_length=1, max_length=16)
    conv_bias: bool = False
    num_conv_pos_embeddings: Annotated[int, Field(ge=1, le=2**10)] = 128
    num_conv_pos_embedding_groups: Annotated[int, Field(ge=1, le=2**10)] = 16
    do_stable_layer_norm: bool = False
    layer_norm_eps: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1e-5
    initializer_range: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.02

    @model_validator(mode="after")
    def _gives_a_row_every_stretch(self) -> Wav2Vec2File:
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel):
            raise ValueError("conv_dim, conv_stride and conv_kernel are of different lengths")
        step, field = 1, 1
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            field, step = field + (kernel - 1) * step, step * stride
        if (step, field) != (STRETCH, _FIELD):
            raise ValueError(f"a row is made of {field} samples every {step}, not of {_FIELD} every {STRETCH}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.hidden_size % self.num_conv_pos_embedding_groups:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_conv_pos_embedding_groups} groups"
            )
        return self


class Settings(Wav2Vec2File):
    """The same in a MemoBert-flow's own file, which says nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")


class SoundFile(ConfigFile):
    """Entries of `sound_networks.sound_network`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    network: Literal[NETWORKS]
    settings: Settings | None = None
    normalise: bool = False

    @model_validator(mode="after")
    def _settings_are_of_wav2vec2(self) -> SoundFile:
        if (self.network == "wav2vec2") != (self.settings is not None):
            raise ValueError(f"{self.network} with settings {self.settings}")
        return self


class MemoBertFlowFile(MemoBertFile):
    """What is read of a MemoBert-flow."""

    num_hidden_layers: Annotated[int, Field(ge=1, le=1000)] = 3
    num_attention_heads: Heads = 8
    text_layers: Own = 12
    visual_layers: Own = 4
    speech_layers: Own = 4
    unimodal_heads: Heads = 12
    flow_types: bool = True
    sound: SoundFile | None = None

    @model_validator(mode="after")
    def _unimodal_heads_divide(self) -> MemoBertFlowFile:
        if self.hidden_size % self.unimodal_heads or self.hidden_size // self.unimodal_heads % 8:
            raise ValueError(
                f"hidden_size {self.hidden_size} with unimodal_heads {self.unimodal_heads} makes no heads whose width "
                "is a multiple of 8"
            )
        return self


_KINDS = {"bert": BertFile, "memobert-flow": MemoBertFlowFile}


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a BERT or MemoBert-flow folder. Raises: as `read_checked`."""
    return read_checked(folder, _KINDS)


def read_wav2vec2(folder: Path) -> dict[str, Any]:
    """The sizes of a wav2vec 2.0 in a folder, as `Wav2Vec2Network` takes them. Raises: `MemofastError` where there is
    none, or one of other sizes."""
    if (kind := model_type(folder)) != "wav2vec2":
        raise MemofastError(f"model.sound.init: {folder} holds a {kind!r} model, not a wav2vec2; give another folder")
    found = read_checked(folder, {"wav2vec2": Wav2Vec2File})
    return checked(found, str(folder), Wav2Vec2File).model_dump(exclude={"dtype", "torch_dtype"})

"""The configuration of towers: of each modality its encoder's own one, and how what is stored becomes its input."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PretrainedConfig

from memofast.data.dialogue import Context
from memofast.model.folder import ConfigFile
from memofast.model.fusion.kinds import Options
from memofast.model.fusion.side_by_side import ConcatOptions

POOLINGS = ("mean", "first")
TRAINED = ("full", "frozen", "lora")


class TowersConfig(PretrainedConfig):
    """Towers and what joins them.

    towers: by modality the entries of `TextEntry`, `PictureEntry` or `SoundEntry`. width: common one that each
    tower's vector is mapped to. fusion: `kind` and options, see `fusion.kinds.FUSIONS`. head_dropout_prob: before the
    last map. context, mask_token_id: what is read of the dialogue around an utterance, and the piece that asks.
    problem_type: as `MemoBertConfig` has it.
    """

    model_type = "towers"

    def __init__(
        self,
        towers: dict[str, dict[str, Any]] | None = None,
        width: int = 768,
        fusion: dict[str, Any] | None = None,
        head_dropout_prob: float = 0.1,
        context: dict[str, Any] | None = None,
        mask_token_id: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.towers = towers or {}
        self.width = width
        self.fusion = fusion or ConcatOptions(depth=0).plain()
        self.head_dropout_prob = head_dropout_prob
        self.context = context
        self.mask_token_id = mask_token_id


class _Entry(BaseModel):
    """encoder: entries of its own configuration, with `model_type`. train: see `TowerSection`. rounded: whether its
    vectors are rounded to float16, as the cache of its training kept them."""

    model_config = ConfigDict(strict=True, extra="forbid")

    encoder: dict[str, Any]
    train: Literal[TRAINED]
    rounded: bool = False


class TextEntry(_Entry):
    """Of text; the row that context asks at is read, else the first."""


class PictureEntry(_Entry):
    """Of pictures: `frames` of a clip, each of `stored` numbers, pixel by pixel in `channels`; scaled to `resize`
    pixels by `resample`, their middle of `crop` pixels, (x * scale - mean) / std. pool: of rows, their mean or the
    first."""

    frames: Annotated[int, Field(ge=1, le=1024)]
    stored: Annotated[int, Field(ge=1, le=2**24)]
    channels: Literal[1, 3]
    resize: Annotated[int, Field(ge=1, le=2**12)]
    crop: Annotated[int, Field(ge=1, le=2**12)]
    resample: Literal["bilinear", "bicubic"]
    scale: Annotated[float, Field(gt=0, le=1e3, allow_inf_nan=False)]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=3, max_length=3)]
    pool: Literal[POOLINGS]


class SoundEntry(_Entry):
    """Of sound at `rate` Hz, `stored` samples a row; normalise: clips to mean 0 and variance 1. shortest: samples that
    a row of the encoder sees, up to which a clip is filled with zeros. spec_augment: whether training hides stretches
    of a clip, as the encoder's configuration says. pool: of rows, their mean or the first."""

    rate: Annotated[int, Field(ge=1, le=10**6)]
    stored: Annotated[int, Field(ge=1, le=2**18)]
    normalise: bool
    shortest: Annotated[int, Field(ge=1, le=2**20)]
    spec_augment: bool
    pool: Literal[POOLINGS]


class _Towers(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    text: TextEntry | None = None
    visual: PictureEntry | None = None
    speech: SoundEntry | None = None


class TowersFile(ConfigFile):
    """What is read of a folder's `config.json`."""

    towers: _Towers
    width: Annotated[int, Field(ge=1, le=2**16)] = 768
    fusion: Options
    head_dropout_prob: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    context: Context | None = None
    mask_token_id: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    problem_type: str | None = None
    id2label: dict[str, str] | None = None

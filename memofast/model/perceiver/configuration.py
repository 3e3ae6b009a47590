"""The configuration of a multimodal Perceiver."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from transformers import PretrainedConfig

from memofast.model.folder import ConfigFile

PATCH = 4  # pixels of a picture's patch, along and across
PATCH_WIDTH = PATCH * PATCH * 3
PICTURE_BANDS, SOUND_BANDS = 32, 192
PICTURE_POSITION, SOUND_POSITION = 3 + 2 * 3 * PICTURE_BANDS, 1 + 2 * SOUND_BANDS
LABEL_QUERY = 1024  # of the decoder's query for the label, before its padding
FRAME_RATE = 25
LABEL_HEADS = ("linear", "mlp")
POOLINGS = ("mean", "max")


class PerceiverEmotionConfig(PretrainedConfig):
    """Sizes under the names of transformers' PerceiverConfig, and what it leaves to whoever makes the inputs.

    d_model: width of an input row, of pixels or sound with its position and padding. image_size: resolution that the
    frequencies of picture positions go up to; output_shape: [1, frames, height, width] of pictures, None: num_frames of
    image_size. label_width: of the one-hot label
    that the checkpoint was trained with, which nothing reads; None: as many as classes. label_head: `linear`, as
    transformers has it, or `mlp`, Linear - dropout - Linear, with head_dropout_prob.
    hop: frames between the windows of a clip that are looked at; pooling: of their probabilities (of a regression their
    values). A window is num_frames pictures at 25 a second, and as much sound at 25 audio_samples_per_frame a second.

    Raises `ValueError` for sizes that make no model. Source: Perceiver IO (Jaegle et al., 2021); transformers 5.
    """

    model_type = "perceiver"

    def __init__(
        self,
        num_latents: int = 784,
        d_latents: int = 512,
        d_model: int = 704,
        num_blocks: int = 1,
        num_self_attends_per_block: int = 8,
        num_self_attention_heads: int = 8,
        num_cross_attention_heads: int = 1,
        self_attention_widening_factor: int = 1,
        cross_attention_widening_factor: int = 1,
        attention_probs_dropout_prob: float = 0.1,
        initializer_range: float = 0.02,
        image_size: int = 224,
        num_frames: int = 16,
        audio_samples_per_frame: int = 1920,
        samples_per_patch: int = 16,
        output_num_channels: int = 512,
        output_shape: list[int] | None = None,
        label_width: int | None = None,
        label_head: str = "mlp",
        head_dropout_prob: float = 0.3,
        hop: int = 8,
        pooling: str = "mean",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_latents = num_latents
        self.d_latents = d_latents
        self.d_model = d_model
        self.num_blocks = num_blocks
        self.num_self_attends_per_block = num_self_attends_per_block
        self.num_self_attention_heads = num_self_attention_heads
        self.num_cross_attention_heads = num_cross_attention_heads
        self.self_attention_widening_factor = self_attention_widening_factor
        self.cross_attention_widening_factor = cross_attention_widening_factor
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.initializer_range = initializer_range
        self.image_size = image_size
        self.num_frames = num_frames
        self.audio_samples_per_frame = audio_samples_per_frame
        self.samples_per_patch = samples_per_patch
        self.output_num_channels = output_num_channels
        self.output_shape = output_shape or [1, num_frames, image_size, image_size]
        self.label_width = label_width or self.num_labels
        self.label_head = label_head
        self.head_dropout_prob = head_dropout_prob
        self.hop = hop
        self.pooling = pooling
        if problem := _problem(self):
            raise ValueError(problem)

    @property
    def picture_size(self) -> int:
        """Pixels along and across a picture."""
        return self.output_shape[2]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Times, heights and widths of a window's patches."""
        return self.num_frames, self.picture_size // PATCH, self.picture_size // PATCH

    @property
    def sound_patches(self) -> int:
        return self.num_frames * self.audio_samples_per_frame // self.samples_per_patch

    @property
    def query_width(self) -> int:
        """Of the decoder's queries."""
        return max(LABEL_QUERY, PICTURE_POSITION, SOUND_POSITION) + 2

    @property
    def sample_rate(self) -> int:
        return FRAME_RATE * self.audio_samples_per_frame

    @property
    def frame_width(self) -> int:
        """Numbers of a picture as it is stored."""
        return 3 * self.picture_size**2


def _problem(config: PerceiverEmotionConfig) -> str | None:
    heads, width = config.num_self_attention_heads, config.d_latents
    if config.num_cross_attention_heads != 1:
        return f"num_cross_attention_heads is 1 in a multimodal Perceiver, not {config.num_cross_attention_heads}"
    if width % heads or width // heads % 8:
        return f"d_latents {width} with num_self_attention_heads {heads} makes no heads of a multiple of 8"
    shape, side = config.output_shape, config.picture_size
    if shape != [1, config.num_frames, side, side] or side % PATCH:
        return f"output_shape {shape} is not 1, num_frames {config.num_frames} and twice a multiple of {PATCH}"
    if config.audio_samples_per_frame % config.samples_per_patch:
        return (
            f"audio_samples_per_frame {config.audio_samples_per_frame} is no multiple of samples_per_patch "
            f"{config.samples_per_patch}"
        )
    least = max(PATCH_WIDTH + PICTURE_POSITION, config.samples_per_patch + SOUND_POSITION, config.label_width)
    if config.d_model <= least:
        return f"d_model {config.d_model} has no room for a row of {least} and its padding"
    return None


Size = Annotated[int, Field(ge=1, le=2**16)]
Factor = Annotated[int, Field(ge=1, le=64)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class PerceiverFile(ConfigFile):
    """What is read of a `config.json`, of ours or of transformers' PerceiverForMultimodalAutoencoding."""

    num_latents: Size
    d_latents: Size
    d_model: Size
    num_blocks: Annotated[int, Field(ge=1, le=1000)] = 1
    num_self_attends_per_block: Annotated[int, Field(ge=1, le=1000)]
    num_self_attention_heads: Size
    num_cross_attention_heads: Size
    self_attention_widening_factor: Factor = 1
    cross_attention_widening_factor: Factor = 1
    hidden_act: Literal["gelu"] = "gelu"
    use_query_residual: Literal[True] = True
    cross_attention_shape_for_attention: Literal["kv"] = "kv"
    qk_channels: None = None
    v_channels: None = None
    attention_probs_dropout_prob: Share = 0.1
    initializer_range: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.02
    image_size: Annotated[int, Field(ge=PATCH, le=2048)]
    num_frames: Annotated[int, Field(ge=1, le=1024)] = 16
    audio_samples_per_frame: Size = 1920
    samples_per_patch: Size = 16
    output_num_channels: Size = 512
    output_shape: Annotated[list[Size], Field(min_length=4, max_length=4)] | None = None
    label_width: Size | None = None
    label_head: Literal[LABEL_HEADS] = "linear"
    head_dropout_prob: Share = 0.3
    hop: Annotated[int, Field(ge=1, le=1024)] = 8
    pooling: Literal[POOLINGS] = "mean"
    problem_type: str | None = None
    id2label: dict[str, str] | None = None

    @model_validator(mode="after")
    def _makes_a_model(self) -> PerceiverFile:
        if self.id2label is not None and set(self.id2label) != {str(n) for n in range(len(self.id2label))}:
            raise ValueError(f"numbers its {len(self.id2label)} classes other than from 0 on")
        return self

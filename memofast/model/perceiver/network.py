"""A multimodal Perceiver: pixels and sound to latents, latents to the label's logits, to pixels and to sound."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.model.perceiver.configuration import (
    LABEL_QUERY,
    PATCH,
    PATCH_WIDTH,
    PICTURE_BANDS,
    PICTURE_POSITION,
    SOUND_BANDS,
    SOUND_POSITION,
    PerceiverEmotionConfig,
)
from memofast.model.perceiver.first_attention import InputRows, first_attention
from memofast.model.perceiver.layers import Dropout, Layer, SelfLayer
from memofast.model.perceiver.positions import axis_tables, decoder_positions, fourier_features

CHUNK = 6272  # points that are decoded at a time
# parameters that the label does not depend on: other outputs', and those of rows that are never hidden or never shown
UNREAD = (
    "input_preprocessor.padding.label",
    "input_preprocessor.mask.image",
    "input_preprocessor.mask.audio",
    "decoder.padding.image",
    "decoder.padding.audio",
    "output_postprocessor.modalities.image.",
    "output_postprocessor.modalities.audio.",
)


def patches_of(frames: Tensor) -> Tensor:
    """Pictures [B, T, H, W, 3] as rows of 4 x 4 pixels, [B, T H/4 W/4, 48]."""
    b, t, h, w, _ = frames.shape
    cut = frames.view(b, t, h // PATCH, PATCH, w // PATCH, PATCH, 3)
    return cut.permute(0, 1, 2, 4, 3, 5, 6).reshape(b, -1, PATCH_WIDTH)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


class InputParts(nn.Module):
    """The learned parts of input rows: what pads them to one width, and the rows that stand for hidden ones."""

    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__()
        width = config.d_model
        used = {
            "audio": config.samples_per_patch + SOUND_POSITION,
            "image": PATCH_WIDTH + PICTURE_POSITION,
            "label": config.label_width,
        }
        self.padding = nn.ParameterDict({name: _parameter(1, width - own) for name, own in used.items()})
        self.mask = nn.ParameterDict({name: _parameter(1, width) for name in ("audio", "image", "label")})


class Latents(nn.Module):
    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__()
        self.latents = _parameter(config.num_latents, config.d_latents)


class Encoder(nn.Module):
    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__()
        width = config.d_latents
        self.cross_attention = Layer(width, config.d_model, config.d_model, config.cross_attention_widening_factor)
        self.self_attends = nn.ModuleList(
            SelfLayer(width, config.num_self_attention_heads, config.self_attention_widening_factor)
            for _ in range(config.num_self_attends_per_block)
        )
        self.blocks = config.num_blocks

    def forward(self, latents: Tensor, dropout: Dropout) -> Tensor:
        """The layers of self-attention. Args: latents [B, L, D]. Returns: the same."""
        samples, count, width = latents.shape
        offsets = torch.arange(samples + 1, device=latents.device, dtype=torch.int32) * count
        rows = latents.reshape(-1, width)
        for block in range(self.blocks):
            for number, layer in enumerate(self.self_attends):
                rows = layer(rows, offsets, dropout, 1 + block * len(self.self_attends) + number)
        return rows.view(latents.shape)


class LabelQuery(nn.Module):
    """The decoder's query for the label, under its long name."""

    def __init__(self):
        super().__init__()
        encodings = nn.ParameterDict({"position_embeddings": _parameter(1, LABEL_QUERY)})
        self.decoder = nn.ModuleDict({"output_position_encodings": encodings})

    @property
    def row(self) -> Tensor:
        return self.decoder["output_position_encodings"]["position_embeddings"]


class SharedDecoder(nn.Module):
    """One cross-attention from queries of any kind to the latents."""

    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__()
        width = config.query_width
        self.decoding_cross_attention = Layer(width, config.d_latents, config.d_latents, 1)
        self.final_layer = nn.Linear(width, config.output_num_channels)

    def one(self, query: Tensor, latents: Tensor, dropout: Dropout, layer: int) -> Tensor:
        """What one query [1, width] makes of latents [B, L, D]: [B, channels]. It folds into the latents' norm, so that
        they are not projected."""
        own = self.decoding_cross_attention.projections
        asked = own.query(own.layernorm1(query)) @ own.key.weight * own.key.out_features**-0.5
        rows = own.layernorm2(latents)
        used = dropout.applied((rows @ asked[0].to(rows.dtype)).softmax(1)[:, None], layer)
        context = own.value.weight @ (used @ rows.to(used.dtype)).mT
        context = context[..., 0] + used.sum(-1) * own.value.bias
        return self.final_layer(self.decoding_cross_attention.end(context, None))

    def keys_and_values(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        own = self.decoding_cross_attention.projections
        rows = own.layernorm2(latents)
        return own.key(rows), own.value(rows)

    def many(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What queries [M, width] make of keys and values [B, L, D]: [B, M, channels]."""
        own = self.decoding_cross_attention.projections
        asked = own.query(own.layernorm1(queries)).expand(len(keys), -1, -1)
        context = F.scaled_dot_product_attention(asked, keys, values)
        return self.final_layer(self.decoding_cross_attention.end(context, None))


class Decoder(nn.Module):
    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__()
        self.modalities = nn.ModuleDict({"label": LabelQuery()})
        self.decoder = SharedDecoder(config)
        used = {"audio": SOUND_POSITION, "image": PICTURE_POSITION, "label": LABEL_QUERY}
        self.padding = nn.ParameterDict({name: _parameter(1, config.query_width - n) for name, n in used.items()})

    def queries(self, name: str, positions: Tensor) -> Tensor:
        padding = self.padding[name]
        return torch.cat([positions.to(padding.dtype), padding.expand(len(positions), -1)], 1)


class Outputs(nn.Module):
    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__()
        channels, classes = config.output_num_channels, config.num_labels
        if config.label_head == "linear":
            label: nn.Module = nn.Linear(channels, classes)
        else:  # the middle one is applied by who calls it, as its random numbers are Philox's
            label = nn.Sequential(nn.Linear(channels, channels // 2), nn.Identity(), nn.Linear(channels // 2, classes))
        heads = {
            "audio": nn.Linear(channels, config.samples_per_patch),
            "image": nn.Linear(channels, 3),
            "label": label,
        }
        self.modalities = nn.ModuleDict({name: nn.ModuleDict({"classifier": m}) for name, m in heads.items()})


class PerceiverNetwork(nn.Module):
    """Parameters under the names that transformers' PerceiverForMultimodalAutoencoding gives them below `perceiver`."""

    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__()
        self.config = config
        self.input_preprocessor = InputParts(config)
        self.embeddings = Latents(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.output_postprocessor = Outputs(config)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of pictures [T + H + W, 195] and of sound [patches, 385], float32; made once, as no weight decides them."""
        if device not in self._tables:
            size, frames = self.config.image_size, self.config.num_frames
            picture = axis_tables(self.config.grid, PICTURE_BANDS, (frames, size, size))
            places, samples = torch.linspace(-1.0, 1.0, self.config.sound_patches)[:, None], self._samples
            sound = fourier_features(places, SOUND_BANDS, (samples,))
            self._tables[device] = picture.to(device), sound.to(device)
        return self._tables[device]

    @property
    def _samples(self) -> int:
        return self.config.num_frames * self.config.audio_samples_per_frame

    @property
    def last_site(self) -> int:
        """Number of the decoder among the layers, for dropout."""
        return 1 + self.config.num_blocks * self.config.num_self_attends_per_block

    def encode(self, pixels: Tensor | None, sound: Tensor | None, dropout: Dropout | None = None) -> Tensor:
        """Latents [B, L, D] of windows.

        Args: pixels: [B, T H/4 W/4, 48], see `patches_of`; sound: [B, samples] or [B, patches, samples of a patch],
            1 full scale; None: hidden, its rows are left out of the softmax. dropout: None: none.
        """
        if pixels is None and sound is None:
            raise ValueError("a Perceiver needs pixels or sound, and got neither")
        given = pixels if pixels is not None else sound
        dropout = dropout or Dropout(0.0, None, torch.zeros(len(given), dtype=torch.int64, device=given.device))
        if sound is not None:
            sound = sound.reshape(len(sound), -1, self.config.samples_per_patch)
        picture, heard = self.positions(given.device)
        parts = self.input_preprocessor
        latents = first_attention(
            self.encoder.cross_attention,
            self.embeddings.latents,
            pixels,
            sound,
            InputRows(picture, parts.padding["image"]),
            InputRows(heard, parts.padding["audio"]),
            parts.mask["label"],
            self.config.grid,
            dropout,
        )
        return self.encoder(latents, dropout)

    def label_channels(self, latents: Tensor, dropout: Dropout | None = None) -> Tensor:
        """What the label's head reads, [B, channels], of latents [B, L, D]."""
        dropout = dropout or Dropout(0.0, None, torch.zeros(len(latents), dtype=torch.int64, device=latents.device))
        query = self.decoder.queries("label", self.decoder.modalities["label"].row)
        return self.decoder.decoder.one(query, latents, dropout, self.last_site)

    def decode(self, latents: Tensor, points: dict[str, Tensor], at_once: int = CHUNK) -> dict[str, Tensor]:
        """Pixels and sound at points of a window, of latents [B, L, D] that were encoded once.

        Args: points: by `image` numbers of pixels, time * height * width flattened, by `audio` numbers of patches,
            [n] int64; at_once: points that are decoded at a time.
        Returns: `image` [B, n, 3] and `audio` [B, n * samples of a patch]. Raises: `ValueError` for a point beyond.
        """
        size, finest, frames = self.config.picture_size, self.config.image_size, self.config.num_frames
        shapes = {"image": (frames, size, size), "audio": (self.config.sound_patches,)}
        bands = {"image": (PICTURE_BANDS, (frames, finest, finest)), "audio": (SOUND_BANDS, (self._samples,))}
        keys, values = self.decoder.decoder.keys_and_values(latents)
        found = {}
        for name, numbers in points.items():
            most = torch.Size(shapes[name]).numel()
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < most:
                raise ValueError(f"points of {name} are numbers from 0 to {most - 1}")
            head, parts = self.output_postprocessor.modalities[name]["classifier"], []
            for chunk in numbers.split(at_once):
                features = fourier_features(decoder_positions(chunk, shapes[name]), *bands[name])
                parts.append(head(self.decoder.decoder.many(self.decoder.queries(name, features), keys, values)))
            out = torch.cat(parts, 1) if parts else latents.new_zeros(len(latents), 0, head.out_features)
            found[name] = out.flatten(1) if name == "audio" else out
        return found

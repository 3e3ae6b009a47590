"""Networks that make rows of speech out of what is stored of sound: waveforms, or frames of ComParE features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data.batch import pad_rows
from memofast.ops.philox import rows_of

STRETCH = 320  # samples that make one row, 20 ms
FRAMES, FRAME_WIDTH = 8, 130  # of ComParE features that make one row
HEARS_SOUND = ("wav2vec2", "waveform")
NETWORKS = (*HEARS_SOUND, "compare")
_BEYOND = 80  # samples that the last window of wav2vec 2.0 reaches beyond its stretch
_WIDTHS = {"waveform": 128, "compare": 512}
_SAMPLE = 32768.0  # of int16
_LEAST = 1e-4  # deviation that is divided by


def width_of(sound: Mapping[str, Any]) -> int:
    """Width of the rows that a network makes."""
    return sound["settings"]["hidden_size"] if sound["network"] == "wav2vec2" else _WIDTHS[sound["network"]]


def stored_width(sound: Mapping[str, Any]) -> int:
    """Width of the stored rows that it takes."""
    return FRAMES * FRAME_WIDTH if sound["network"] == "compare" else STRETCH


def sound_network(sound: Mapping[str, Any]) -> nn.Module:
    """The network that a configuration describes: `network` of `NETWORKS`, and of wav2vec 2.0 its `settings` and
    whether clips are `normalise`d.

    Called with stored rows [n, stored width], offsets [B+1] int32, sample_keys and rng as a `FaceNetwork`, it gives
    rows [n, width]. Raises: `KeyError` for an unknown one.
    """
    if sound["network"] == "wav2vec2":
        return Wav2Vec2Network(sound["settings"], sound["normalise"])
    return {"waveform": WaveformNetwork, "compare": CompareNetwork}[sound["network"]]()


class WaveformNetwork(nn.Module):
    """Three convolutions over each stretch of 320 samples alone, so that a row depends on nothing but its stretch."""

    def __init__(self):
        super().__init__()
        self.width = _WIDTHS["waveform"]
        self.register_buffer("std", torch.ones(1))
        self.first = nn.Conv1d(1, 32, 40, stride=20, padding=10)
        self.second = nn.Conv1d(32, 64, 4, stride=4)
        self.third = nn.Conv1d(64, self.width, 4)

    def takes(self, rows: Tensor) -> bool:
        return not rows.is_floating_point()

    @torch.no_grad()
    def settle(self, rows: Tensor) -> None:
        """Let the samples be divided by their root mean square in these rows."""
        self.std.copy_((rows.double() / _SAMPLE).square().mean().sqrt().clamp(min=_LEAST))

    def forward(self, rows: Tensor, offsets: Tensor, sample_keys: Tensor, rng: Tensor | None) -> Tensor:
        sound = rows[:, None].float() / (_SAMPLE * self.std)
        return self.third(F.gelu(self.second(F.gelu(self.first(sound)))))[:, :, 0]


class CompareNetwork(nn.Module):
    """Four convolutions over the frames of a clip, of which the first three halve their number; behind its last frame a
    clip goes on with zeros.

    Source of the sizes: MEmoBERT's uniter3flow; its padding and activation are not known.
    """

    def __init__(self):
        super().__init__()
        self.width = _WIDTHS["compare"]
        self.register_buffer("mean", torch.zeros(FRAME_WIDTH))
        self.register_buffer("std", torch.ones(FRAME_WIDTH))
        self.convolutions = nn.ModuleList(
            [
                nn.Conv1d(FRAME_WIDTH, 256, 10, stride=2, padding=4),
                nn.Conv1d(256, 512, 5, stride=2, padding=2),
                nn.Conv1d(512, 1024, 5, stride=2, padding=2),
                nn.Conv1d(1024, self.width, 3, padding=1),
            ]
        )

    def takes(self, rows: Tensor) -> bool:
        return rows.shape[1] == FRAMES * FRAME_WIDTH

    @torch.no_grad()
    def settle(self, rows: Tensor) -> None:
        """Let the columns of a frame be standardised as they are in these rows."""
        frames = rows.double().view(-1, FRAME_WIDTH)
        self.mean.copy_(frames.mean(0))
        self.std.copy_(frames.std(0, correction=0).clamp(min=_LEAST))

    def forward(self, rows: Tensor, offsets: Tensor, sample_keys: Tensor, rng: Tensor | None) -> Tensor:
        frames = (rows.float().view(-1, FRAMES, FRAME_WIDTH) - self.mean) / self.std
        lengths = offsets.diff().to(torch.int64)
        inner = pad_rows(frames, offsets).flatten(1, 2).transpose(1, 2)  # [B, width, frames]
        if not inner.shape[2]:
            return _unpadded(inner.new_zeros(len(lengths), 0, self.width), offsets, len(rows))
        lengths = lengths * FRAMES
        for convolution in self.convolutions:
            inner = convolution(inner)
            lengths = lengths // convolution.stride[0]
            inside = torch.arange(inner.shape[2], device=inner.device) < lengths[:, None]
            inner = torch.where(inside[:, None], F.gelu(inner), 0)  # beside a longer clip as alone
        return _unpadded(inner.transpose(1, 2), offsets, len(rows))


class Wav2Vec2Network(nn.Module):
    """wav2vec 2.0 of transformers over whole clips, of which every 320 samples give one row. A clip ends in 80 zeros,
    without which its last stretch would give none.

    Clips are padded beside each other, but none sees that: where the first convolution's norm goes over time, it
    counts a clip's own frames. Its dropouts, skipped layers and masks over time are off, as a run's random numbers are
    Philox's.

    Args: settings: entries of transformers' Wav2Vec2Config. normalise: whether it was trained on clips of mean 0 and
        variance 1.
    """

    def __init__(self, settings: Mapping[str, Any], normalise: bool):
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        off = dict.fromkeys(
            (
                "hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout",
                "layerdrop", "mask_time_prob", "mask_feature_prob",
            ),
            0.0,
        )  # fmt: skip
        self.width, self.normalise = settings["hidden_size"], normalise
        self.body = Wav2Vec2Model(Wav2Vec2Config(**settings, **off, apply_spec_augment=False, add_adapter=False))

    def takes(self, rows: Tensor) -> bool:
        return not rows.is_floating_point()

    def forward(self, rows: Tensor, offsets: Tensor, sample_keys: Tensor, rng: Tensor | None) -> Tensor:
        lengths = offsets.diff().to(torch.int64)
        heard = lengths > 0
        if not heard.any():
            return _unpadded(rows.new_zeros(len(lengths), 0, self.width, dtype=torch.float32), offsets, len(rows))
        lengths = lengths[heard]
        sound = pad_rows(rows.float() / _SAMPLE, offsets)[heard].flatten(1)
        if self.normalise:
            sound = self._normalised(sound, lengths * STRETCH)
        hidden = self._convolved(F.pad(sound, (0, _BEYOND)), lengths * STRETCH + _BEYOND).transpose(1, 2)
        hidden = self.body.feature_projection(hidden)[0]
        inside = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        made = self.body.encoder(hidden, attention_mask=inside).last_hidden_state
        every = made.new_zeros(len(heard), *made.shape[1:])
        return _unpadded(every.index_copy(0, heard.nonzero()[:, 0], made), offsets, len(rows))

    @staticmethod
    def _normalised(sound: Tensor, lengths: Tensor) -> Tensor:
        """(x - mean) / sqrt(variance + 1e-7) of each clip, as transformers' feature extractor has it."""
        inside = torch.arange(sound.shape[1], device=sound.device) < lengths[:, None]
        mean = sound.sum(1, keepdim=True) / lengths[:, None]
        apart = torch.where(inside, sound - mean, 0)
        return apart / ((apart.square().sum(1, keepdim=True) / lengths[:, None]) + 1e-7).sqrt()

    def _convolved(self, sound: Tensor, lengths: Tensor) -> Tensor:
        """Waveforms [B, samples] through the feature encoder: [B, width, rows]."""
        first, *others = self.body.feature_extractor.conv_layers
        hidden = sound[:, None]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            frames = (lengths - first.conv.kernel_size[0]) // first.conv.stride[0] + 1
            hidden = first.activation(_normed_over_time(first.layer_norm, first.conv(hidden), frames))
        else:
            hidden = first(hidden)
        for layer in others:
            hidden = layer(hidden)
        return hidden


def _normed_over_time(norm: nn.GroupNorm, hidden: Tensor, frames: Tensor) -> Tensor:
    """A group norm of one channel per group [B, channels, frames], over each clip's own frames [B] alone."""
    inside = (torch.arange(hidden.shape[2], device=hidden.device) < frames[:, None])[:, None]
    count = frames[:, None, None]
    wide = hidden.float()
    mean = torch.where(inside, wide, 0).sum(2, keepdim=True) / count
    apart = wide - mean
    variance = torch.where(inside, apart.square(), 0).sum(2, keepdim=True) / count
    normed = apart * torch.rsqrt(variance + norm.eps)
    return (normed * norm.weight[:, None] + norm.bias[:, None]).to(hidden.dtype)


def _unpadded(padded: Tensor, offsets: Tensor, rows: int) -> Tensor:
    """Rows [rows, width] of padded ones [B, longest, width]; those of no sample are zero."""
    if not padded.shape[0] or not padded.shape[1]:
        return padded.new_zeros(rows, padded.shape[2])
    sample, position = rows_of(offsets, rows)
    of_one = sample < len(padded)
    found = padded[sample.clamp(max=len(padded) - 1), position.clamp(min=0, max=padded.shape[1] - 1)]
    return torch.where(of_one[:, None], found, 0)

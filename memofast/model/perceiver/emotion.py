"""A Perceiver that names the emotion of clips from their pictures and sound."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from memofast.data.batch import PackedBatch
from memofast.data.modality import FEATURES
from memofast.data.view import View
from memofast.model.perceiver.configuration import PerceiverEmotionConfig
from memofast.model.perceiver.layers import Dropout
from memofast.model.perceiver.network import UNREAD, Latents, PerceiverNetwork, patches_of
from memofast.model.perceiver.windows import Windows, drawn_windows, every_window, in_parts, read_window
from memofast.model.problems import EmotionOutputs, probabilities_of
from memofast.ops.philox import Place, drop_threshold, hidden_keep_mask, keep_scale, site

_AT_ONCE = 8  # windows that are looked at together without gradients
_LEAST = 1e-30  # of a probability whose logarithm is taken


class PerceiverForEmotion(EmotionOutputs, PreTrainedModel):
    """Logits of emotion classes, or a value, of clips: in training of one window of each, drawn anew in every update;
    else pooled over all windows of a clip. Weights have the names of transformers' PerceiverForMultimodalAutoencoding.
    """

    config_class = PerceiverEmotionConfig
    base_model_prefix = "perceiver"

    def __init__(self, config: PerceiverEmotionConfig):
        super().__init__(config)
        self.perceiver = PerceiverNetwork(config)
        self.post_init()
        for name, parameter in self.perceiver.named_parameters():
            if name.startswith(UNREAD) or name.endswith(_SHIFTS):
                parameter.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.ParameterDict):
            for name in module:
                init.normal_(module[name], mean=0.0, std=std)
        elif isinstance(module, Latents):
            init.normal_(module.latents, mean=0.0, std=std)

    @property
    def reads(self) -> Mapping[str, int]:
        """As `family.Reader.reads`."""
        return {"visual": self.config.frame_width, "speech": self.config.audio_samples_per_frame}

    @property
    def streams(self) -> Mapping[str, str]:
        """As `family.Reader.streams`; it reads none."""
        return {}

    @property
    def raw(self) -> frozenset[str]:
        """As `family.Reader.raw`."""
        return frozenset(FEATURES)

    @property
    def longest(self) -> Mapping[str, int]:
        """As `family.Reader.longest`; there is no bound."""
        return {}

    @property
    def shortest(self) -> Mapping[str, int]:
        """Fewest rows of a clip, by modality: those of a window. What it was trained without may be missing."""
        return dict.fromkeys(FEATURES, self.config.num_frames)

    def forward(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, outputs], or values [B, 1]. rng [2] int64: seed and update, needed in training mode.

        Raises: `MemofastError` for a clip without pictures and sound, or shorter than a window; `ValueError` for a view
            that gives rows other positions.
        """
        view = View.of(seen)
        if view.positions:
            raise ValueError("a Perceiver reads rows in their order; their positions are those of a window")
        if self.training:
            return self._of_drawn_windows(view, rng)
        windows = every_window(view, self.config.num_frames, self.config.hop)
        parts = list(in_parts(windows, _AT_ONCE))
        found = torch.cat([self._logits(view, part, None) for part in parts])
        owners = torch.cat([part.samples for part in parts]).to(found.device)
        return self._pooled(found.float(), owners, view.batch.samples)

    def _of_drawn_windows(self, view: View, rng: Tensor | None) -> Tensor:
        if rng is None:
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its windows; or call eval()"
            )
        parts = drawn_windows(view, self.config.num_frames, rng)
        found = torch.cat([self._logits(view, part, rng) for part in parts])
        order = torch.cat([part.samples for part in parts]).argsort()
        return found[order.to(found.device)]

    def _logits(self, view: View, windows: Windows, rng: Tensor | None) -> Tensor:
        """Of windows [n, outputs]."""
        config, keys = self.config, view.keys[windows.samples.to(view.keys.device)]
        read = {name: read_window(view, name, windows, config.num_frames, self.reads[name]) for name in windows.shown}
        pixels = sound = None
        if "visual" in read:
            side = config.picture_size
            pixels = patches_of(read["visual"].view(-1, config.num_frames, side, side, 3))
        if "speech" in read:
            sound = read["speech"].flatten(1)
        p = config.attention_probs_dropout_prob if self.training else 0.0
        return self.window_logits(pixels, sound, Dropout(p, rng, keys))

    def window_logits(self, pixels: Tensor | None, sound: Tensor | None, dropout: Dropout | None = None) -> Tensor:
        """Logits of windows [n, outputs], see `PerceiverNetwork.encode`."""
        channels = self.perceiver.label_channels(self.perceiver.encode(pixels, sound, dropout), dropout)
        classifier = self.perceiver.output_postprocessor.modalities["label"]["classifier"]
        if isinstance(classifier, nn.Linear):
            return classifier(channels)
        first, _, second = classifier
        return second(self._dropped(first(channels), dropout))

    def _dropped(self, values: Tensor, dropout: Dropout | None) -> Tensor:
        p = self.config.head_dropout_prob
        if not (self.training and drop_threshold(p)):
            return values
        if dropout is None or dropout.rng is None:
            raise ValueError("a model in training mode needs rng [2] int64 (seed, step) for dropout; or call eval()")
        samples = torch.arange(len(values) + 1, device=values.device, dtype=torch.int32)
        layer = self.perceiver.last_site
        keep = hidden_keep_mask(dropout.rng, site(layer, Place.HEAD), dropout.keys, samples, *values.shape, p)
        return values * keep * keep_scale(p)

    def _pooled(self, logits: Tensor, owners: Tensor, samples: int) -> Tensor:
        """Logits of pooled probabilities [B, outputs]. Args: logits: of windows [n, outputs]; owners: samples [n]."""
        values = probabilities_of(logits, self.kind)
        place = owners[:, None].expand_as(values)
        reduce = {"mean": "mean", "max": "amax"}[self.config.pooling]
        values = values.new_zeros(samples, values.shape[1]).scatter_reduce(0, place, values, reduce, include_self=False)
        if self.kind == "regression":
            return values
        if self.kind == "multi":
            return torch.logit(values, eps=1e-7)
        return (values / values.sum(-1, keepdim=True)).clamp(min=_LEAST).log()


# biases of keys add one number to all scores of a query, which softmax does not see
_SHIFTS = (
    "encoder.cross_attention.attention.self.key.bias",
    "decoding_cross_attention.attention.self.key.bias",
)

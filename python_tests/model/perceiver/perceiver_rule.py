"""transformers' multimodal Perceiver of several sizes, with weights by a rule that the golden values were made by."""

import zlib

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverForMultimodalAutoencoding

from memofast.model.perceiver import PerceiverEmotionConfig, PerceiverForEmotion, patches_of

CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
REAL = {
    "num_latents": 784, "d_latents": 512, "num_blocks": 1, "num_self_attends_per_block": 8,
    "num_self_attention_heads": 8, "image_size": 224, "num_frames": 16, "audio_samples_per_frame": 1920,
    "samples_per_patch": 16, "output_num_channels": 512,
}  # fmt: skip
TINY = {
    "num_latents": 8, "d_latents": 16, "num_self_attends_per_block": 2, "num_self_attention_heads": 2, "image_size": 16,
    "num_frames": 2, "audio_samples_per_frame": 64, "output_num_channels": 32,
}  # fmt: skip
MIDDLE = {
    "num_latents": 196, "d_latents": 256, "image_size": 112, "num_frames": 8, "audio_samples_per_frame": 960,
    "output_num_channels": 256, "num_self_attends_per_block": 4,
}  # fmt: skip
SIZES = {"real": REAL, "tiny": {**REAL, **TINY}, "middle": {**REAL, **MIDDLE}}


def fill(model: nn.Module) -> None:
    """Weights by their names, see the README of the golden values."""
    for name, weight in model.named_parameters():
        values = (
            np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(weight.shape)).astype(np.float32)
        )
        if weight.dim() == 1:
            values = values * np.float32(0.1) + np.float32("norm" in name and name.endswith("weight"))
        elif name.endswith("weight"):
            values = values * np.float32(weight.shape[-1] ** -0.5)
        weight.data.copy_(torch.from_numpy(values))


def theirs(size: str, labels: int = 6, **changed) -> PerceiverForMultimodalAutoencoding:
    """transformers' model; with six labels those of the published exchange, in place of 700."""
    sizes = SIZES[size] | changed
    shape = [1, sizes["num_frames"], sizes["image_size"], sizes["image_size"]]
    config = PerceiverConfig(**sizes, d_model=704, num_cross_attention_heads=1, num_labels=700, output_shape=shape)
    model = PerceiverForMultimodalAutoencoding(config)
    before, after = model.perceiver.input_preprocessor, model.perceiver.output_postprocessor
    before.num_channels_before = before.num_channels
    if labels == 6:
        config.id2label, config.label2id = dict(enumerate(CLASSES)), {name: n for n, name in enumerate(CLASSES)}
        before.padding["label"] = nn.Parameter(torch.empty(1, before.num_channels_before - 6))
        before.min_padding_size = before.num_channels_before - before.modalities["audio"].num_channels
        width = after.modalities["label"].classifier.in_features
        after.modalities["label"].classifier = nn.Sequential(
            nn.Linear(width, width // 2), nn.Dropout(0.3), nn.Linear(width // 2, 6)
        )
    fill(model)
    return model.eval()


def ours(model: PerceiverForMultimodalAutoencoding, labels: int = 6) -> PerceiverForEmotion:
    """The same weights in our words."""
    config, names = model.config, ("num_blocks", "attention_probs_dropout_prob", *SIZES["real"])
    entries = {name: getattr(config, name) for name in names}
    head = "mlp" if labels == 6 else "linear"
    config = PerceiverEmotionConfig(**entries, label_width=labels, num_labels=labels, label_head=head)
    own = PerceiverForEmotion(config)
    own.load_state_dict(model.state_dict(), strict=True)
    return own.to(next(model.parameters()).dtype).eval()


def inputs(model: nn.Module, samples: int = 2, labels: int = 6) -> dict[str, Tensor]:
    config, draws, dtype = model.config, np.random.RandomState(7), next(model.parameters()).dtype
    side, frames = config.image_size, config.num_frames
    image = draws.standard_normal((samples, frames, 3, side, side)).astype(np.float32)
    audio = draws.standard_normal((samples, frames * config.audio_samples_per_frame, 1)).astype(np.float32)
    found = {"image": torch.from_numpy(image), "audio": torch.from_numpy(audio), "label": torch.zeros(samples, labels)}
    return {name: value.to(dtype) for name, value in found.items()}


def label_only(model: PerceiverForMultimodalAutoencoding, given: dict[str, Tensor]) -> Tensor:
    """transformers' own parts, the decoder asked for the label alone."""
    own = model.perceiver
    rows = own.input_preprocessor(given)[0]
    latents = own.encoder(own.embeddings(batch_size=len(rows)), inputs=rows).last_hidden_state
    label = own.decoder.modalities["label"].decoder.output_position_encodings.position_embeddings
    query = torch.cat([label, own.decoder.padding["label"]], -1).expand(len(rows), -1, -1)
    return own.output_postprocessor.modalities["label"](own.decoder.decoder(query, latents).logits)


def label_logits(model: PerceiverForEmotion, given: dict[str, Tensor]) -> Tensor:
    pixels = patches_of(given["image"].permute(0, 1, 3, 4, 2))
    return model.window_logits(pixels, given["audio"][..., 0])

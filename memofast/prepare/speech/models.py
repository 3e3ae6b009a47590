"""Rows of wav2vec 2.0, HuBERT, WavLM and data2vec from local transformers folders.

A clip's sound runs alone, never padded beside others: in the base models group norm reaches over the whole sound,
padding included, and a clip's rows must be the same to the bit whichever clips are left to do.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from memofast.errors import MemofastError
from memofast.prepare.media.decoding import SAMPLE_RATE
from memofast.prepare.pretrained import load_pretrained, preprocessing, read_config

_TYPES = {"wav2vec2": "wav2vec2", "hubert": "hubert", "wavlm": "wavlm", "data2vec": "data2vec-audio"}


class SpeechModel:
    """Activations of one layer, a row every `hop` seconds of `window` seconds of sound (20 and 25 ms in the published
    models).

    layer: `last`, the last hidden states; a number from 1, what that layer of the encoder gives; `conv`, what the
    convolutions give, before their norm and projection; several of them side by side, as `last+conv`.
    """

    dtype = "float16"

    def __init__(self, kind: str, path: Path, layer: str, device: torch.device):
        from transformers import AutoModel

        config = read_config(path, f"--speech {kind}")
        if config.model_type != _TYPES[kind]:
            fit = next((name for name, type in _TYPES.items() if type == config.model_type), None)
            remedy = f"use --speech {fit}={path}" if fit else "give the folder of such a model"
            raise MemofastError(f"{path} holds a {config.model_type} model, not {_TYPES[kind]}; {remedy}")
        self._layers = layer.split("+")
        numbers = [int(one) for one in self._layers if one.isdigit()]
        if numbers and max(numbers) > config.num_hidden_layers:
            raise MemofastError(
                f"--speech {kind}: the model at {path} has {config.num_hidden_layers} layers, not {max(numbers)}"
            )
        self.name = kind if layer == "last" else f"{kind} layer {layer}"
        self.width = sum(config.conv_dim[-1] if one == "conv" else config.hidden_size for one in self._layers)
        steps = np.cumprod([1, *config.conv_stride])
        self._field = 1 + sum((kernel - 1) * int(step) for kernel, step in zip(config.conv_kernel, steps, strict=False))
        self.hop, self.window = int(steps[-1]) / SAMPLE_RATE, self._field / SAMPLE_RATE
        self._normalise = _normalises(path)
        self.normalisation = "sound z-normed within the clip" if self._normalise else "none"
        pretrained = load_pretrained(AutoModel, path)
        self.fingerprint = pretrained.fingerprint({"layer": layer, "normalise": self._normalise})
        self._device, self._model = device, pretrained.model.to(device)
        self._kept: dict[str, torch.Tensor] = {}
        encoder = self._model.encoder
        if numbers and "last" not in self._layers:
            encoder.layers = encoder.layers[: max(numbers)]  # what follows is not needed
        for number in numbers:
            encoder.layers[number - 1].register_forward_hook(partial(self._keep, str(number)))
        if "conv" in self._layers:
            self._model.feature_extractor.register_forward_hook(partial(self._keep, "conv"))

    def _keep(self, layer: str, _module, _given, result) -> None:
        self._kept[layer] = result[0] if isinstance(result, tuple) else result

    @torch.inference_mode()
    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if len(sound) < self._field:
            return np.empty((0, self.width), np.float32)
        if self._normalise:
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)  # as transformers' own feature extractor
        given = torch.from_numpy(sound[None]).to(self._device)
        if self._layers == ["conv"]:
            self._model.feature_extractor(given)
        else:
            self._kept["last"] = self._model(given).last_hidden_state
        kept, self._kept = self._kept, {}
        rows = [kept[one][0].T if one == "conv" else kept[one][0] for one in self._layers]
        return torch.cat(rows, 1).cpu().numpy()


def _normalises(path: Path) -> bool:
    """Whether the model was made for sounds of mean 0 and variance 1; yes where its folder does not say, as in
    transformers."""
    settings = preprocessing(path, "feature_extractor")
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise MemofastError(f"the model at {path} hears sound at {rate} Hz; memofast gives {SAMPLE_RATE} Hz")
    return bool(settings.get("do_normalize", True))

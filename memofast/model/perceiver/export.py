"""A Perceiver for other runtimes: windows to logits in plain PyTorch, as a `torch.export` program or an ONNX file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.files import replace_file
from memofast.model.memobert.export import KINDS, MOST_SAMPLES, quiet
from memofast.model.perceiver.emotion import PerceiverForEmotion
from memofast.model.perceiver.layers import Layer
from memofast.model.perceiver.network import patches_of

NAMES = ["pixels", "sound"]


class PlainPerceiver(nn.Module):
    """The weights of a `PerceiverForEmotion`, in evaluation mode, over rows that are made: slower and larger, but of
    operators that every runtime has."""

    def __init__(self, model: PerceiverForEmotion):
        super().__init__()
        self.network, self.config = model.perceiver, model.config
        picture, sound = self.network.positions(torch.device("cpu"))
        t, h, w = self.config.grid
        times, heights, widths = picture.split((t, h, w))
        grid = times[:, None, None] + heights[:, None] + widths
        self.register_buffer("picture", grid.flatten(0, 2))
        self.register_buffer("sound", sound)
        self.eval()

    def forward(self, pixels: Tensor, sound: Tensor) -> Tensor:
        """Logits [B, classes] of windows.

        Args: pixels: [B, frames, side, side, 3] float32, red, green and blue of 0 to 1; sound: [B, samples] float32, 1
            full scale.
        """
        network, parts = self.network, self.network.input_preprocessor
        patches = sound.reshape(sound.shape[0], -1, self.config.samples_per_patch)
        rows = torch.cat(
            [
                self._rows(patches, self.sound, parts.padding["audio"]),
                self._rows(patches_of(pixels), self.picture, parts.padding["image"]),
                parts.mask["label"].expand(sound.shape[0], 1, -1),
            ],
            1,
        )
        latents = network.embeddings.latents.expand(sound.shape[0], -1, -1)
        latents = self._layer(network.encoder.cross_attention, latents, rows, 1)
        for _ in range(network.encoder.blocks):
            for layer in network.encoder.self_attends:
                latents = self._layer(layer, latents, None, layer.heads)
        decoder = network.decoder
        query = decoder.queries("label", decoder.modalities["label"].row).expand(sound.shape[0], -1, -1)
        decoded = self._layer(decoder.decoder.decoding_cross_attention, query, latents, 1, residual=False)
        return network.output_postprocessor.modalities["label"]["classifier"](
            decoder.decoder.final_layer(decoded)[:, 0]
        )

    @staticmethod
    def _rows(values: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        count = values.shape[0], values.shape[1]
        return torch.cat([values, positions.expand(*count, -1), padding.expand(*count, -1)], -1)

    @staticmethod
    def _layer(layer: Layer, x: Tensor, rows: Tensor | None, heads: int, residual: bool = True) -> Tensor:
        own = layer.projections
        normed = own.layernorm1(x)
        rows = normed if rows is None else own.layernorm2(rows)
        query, key, value = (
            projected.view(x.shape[0], -1, heads, projected.shape[-1] // heads).transpose(1, 2)
            for projected in (own.query(normed), own.key(rows), own.value(rows))
        )
        context = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended = layer.attention["output"]["dense"](context) + (x if residual else 0)
        mlp = layer.mlp
        return attended + mlp.dense2(F.gelu(mlp.dense1(layer.layernorm(attended))))


def export(model: PerceiverForEmotion, path: Path) -> list[str]:
    """Write the model as FILE.pt2 (`torch.export`) or FILE.onnx, for any number of windows, whole or not at all.

    A file of either kind also holds `classes`, `kind`, `hop` and `pooling`: how whoever calls it makes windows of a
    clip and pools them. Raises: `MemofastError` for another suffix, a folder that is not there, and ONNX where its
    extra is not installed.
    """
    if path.suffix not in KINDS:
        raise MemofastError(f"{path} is neither {' nor '.join(KINDS)}; the suffix chooses what is written")
    if not path.parent.is_dir():
        raise MemofastError(
            f"{path} cannot be written: there is no folder {path.parent}; make it or choose another place"
        )
    config, plain = model.config, PlainPerceiver(model.cpu().float())
    samples = torch.export.Dim("windows", max=MOST_SAMPLES)
    pixels = torch.zeros(2, config.num_frames, config.picture_size, config.picture_size, 3)
    given = (pixels, torch.zeros(2, config.num_frames * config.audio_samples_per_frame))
    program = torch.export.export(plain, given, dynamic_shapes={name: {0: samples} for name in NAMES})
    about = {"classes": json.dumps(model.classes), "kind": model.kind}
    about |= {"hop": str(config.hop), "pooling": config.pooling}
    if path.suffix == ".pt2":
        file = io.BytesIO()
        torch.export.save(program, file, extra_files=about)
        replace_file(path, file.getvalue())
    else:
        replace_file(path, _onnx(program, about))
    return [*NAMES]


def _onnx(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MemofastError(f'.onnx needs {error.name}, which is not installed: pip install "memofast[onnx]"') from None
    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, input_names=NAMES, output_names=["outputs"], optimize=True, verbose=False
        )
    made.model.metadata_props.update(about)
    return made.model_proto.SerializeToString()

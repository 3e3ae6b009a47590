"""The whole encoder once more in plain PyTorch over a padded batch; it shares no code with the packed model but its
parameters."""

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.batch import PackedBatch
from memofast.model import MemoBertModel
from memofast.ops.attention_reference import attention_keep_mask
from memofast.ops.philox import Place, hidden_keep_mask, site


class PaddedReference:
    """Runs `model` on `batch` as [B, L, C] with a key mask; dropout masks are those of the packed layout, padded."""

    def __init__(
        self, model: MemoBertModel, batch: PackedBatch, sources: dict | None = None, rng: Tensor | None = None
    ):
        self.model, self.batch, self.rng, self.sources = model, batch, rng, sources or {}
        self.config = model.config
        self.real = self._real(batch.offsets)

    def __call__(self) -> Tensor:
        """Returns: packed hidden rows [N, C]."""
        hidden = self._dropped(self._embeddings(), self.config.hidden_dropout_prob, site(0, Place.EMBEDDING))
        for layer in self.model.encoder.layers:
            hidden = self._layer(layer, hidden)
        return hidden[self.real]

    @staticmethod
    def _real(offsets: Tensor) -> Tensor:
        lengths = offsets.diff()
        return torch.arange(int(lengths.max())) < lengths[:, None]

    def _embeddings(self) -> Tensor:
        own, batch = self.model.embeddings, self.batch
        position = torch.cat([torch.arange(n) for n in batch.text_offsets.diff().tolist()])
        text = own.word.weight[batch.token_ids.long()] + own.position.weight[position] + own.types.weight[0]
        parts = {"text": own.norm(text)}
        types = own.types.weight[[0, 1, 1]] if self.config.shared_types else own.types.weight
        for kind, modality in enumerate(("visual", "speech"), start=1):
            features = getattr(batch, modality)
            if features is None:
                continue
            part = getattr(own, modality)
            raw = features[:, : part.width]
            if (source := self.sources.get(modality)) is not None:
                raw = torch.where((source >= 0)[:, None], raw[source.long().clamp(min=0)], part.mask)
            position = torch.cat([torch.arange(n) for n in getattr(batch, f"{modality}_offsets").diff().tolist()])
            inner = part.projection_norm(part.projection(raw))
            if self.config.projection_block:
                inner = part.block_norm(F.gelu(part.block(self._block_dropped(inner, modality))))
            table = part.position.weight
            if self.config.position_encoding == "sinusoid":
                table = self._sinusoid(*table.shape)
            parts[modality] = part.norm(inner + table[position] + types[kind])
        hidden = torch.zeros(*self.real.shape, self.config.hidden_size)
        samples = [
            torch.cat([rows[slice(*getattr(batch, f"{m}_offsets")[b : b + 2].tolist())] for m, rows in parts.items()])
            for b in range(batch.samples)
        ]
        return hidden.masked_scatter(self.real[..., None], torch.cat(samples))

    def _block_dropped(self, rows: Tensor, modality: str) -> Tensor:
        p = self.config.hidden_dropout_prob
        if self.rng is None or not p:
            return rows
        place = site(0, {"visual": Place.VISUAL_BLOCK, "speech": Place.SPEECH_BLOCK}[modality])
        offsets = getattr(self.batch, f"{modality}_offsets")
        return rows * hidden_keep_mask(self.rng, place, self.batch.sample_keys, offsets, *rows.shape, p) / (1 - p)

    @staticmethod
    def _sinusoid(rows: int, width: int) -> Tensor:
        """One number at a time, as the formula stands."""
        angle = [[row / 10000 ** (column // 2 * 2 / width) for column in range(width)] for row in range(rows)]
        table = torch.tensor(angle, dtype=torch.float64)
        table[:, ::2], table[:, 1::2] = table[:, ::2].sin(), table[:, 1::2].cos()
        return table.float()

    def _layer(self, layer, x: Tensor) -> Tensor:
        number = layer.index + 1
        samples, length, width = x.shape
        q, k, v = layer.qkv(x).view(samples, length, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT) * (width // layer.heads) ** -0.5
        probability = scores.masked_fill(~self.real[:, None, None, :], -torch.inf).softmax(-1)
        p = self.config.attention_probs_dropout_prob
        if self.rng is not None and p:
            place = site(number, Place.ATTENTION)
            keep = attention_keep_mask(self.rng, place, self.batch.sample_keys, layer.heads, length, p)
            probability = probability * keep / (1 - p)
        attended = (probability @ v).transpose(1, 2).reshape(samples, length, width)
        p = self.config.hidden_dropout_prob
        attended = self._dropped(layer.attention_output(attended), p, site(number, Place.ATTENTION_OUTPUT))
        x = layer.attention_norm(x + attended)
        inner = layer.output(F.gelu(layer.intermediate(x)))
        return layer.output_norm(x + self._dropped(inner, p, site(number, Place.FEED_FORWARD_OUTPUT)))

    def _dropped(self, x: Tensor, p: float, place: int) -> Tensor:
        if self.rng is None or not p:
            return x
        batch = self.batch
        keep = hidden_keep_mask(self.rng, place, batch.sample_keys, batch.offsets, batch.rows, x.shape[-1], p)
        padded = torch.zeros(x.shape, dtype=torch.bool).masked_scatter(self.real[..., None], keep)
        return x * padded / (1 - p)

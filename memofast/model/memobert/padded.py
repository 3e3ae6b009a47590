"""An emotion model over padded tensors in plain PyTorch: slower than the packed one, but `torch.export` and other
runtimes can take it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data.modality import FEATURES
from memofast.model.memobert.embeddings import FeatureEmbeddings
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.encoder import MemoBertLayer


class PaddedEmotionModel(nn.Module):
    """The weights of a `MemoBertForEmotion`, in evaluation mode; a padded row takes part in nothing."""

    def __init__(self, model: MemoBertForEmotion):
        super().__init__()
        self.embeddings = model.memobert.embeddings
        self.layers = model.memobert.encoder.layers
        self.pooler, self.head = model.memobert.pooler, model.emotion
        self.modalities = tuple(m for m in FEATURES if getattr(self.embeddings, m) is not None)
        self.eval()

    def forward(self, token_ids: Tensor, text_lengths: Tensor, *features: Tensor) -> Tensor:
        """Logits [B, classes].

        Args: token_ids [B, T] int64; text_lengths [B] int64; then for visual and for speech, as far as the model has
            them, rows [B, R, width] float32 in their true width and lengths [B] int64. T and R are at least 1.
        """
        embeddings = self.embeddings
        words = embeddings.word(token_ids) + embeddings.position.weight[: token_ids.shape[1]] + embeddings.type_rows[0]
        inside = [_inside(token_ids, text_lengths)]
        hidden = [self._read("text", embeddings.norm(words), inside[0])]
        for modality, rows, lengths in zip(self.modalities, features[::2], features[1::2], strict=True):
            kind = 1 + FEATURES.index(modality)
            inside.append(_inside(rows, lengths))
            begun = _feature_rows(getattr(embeddings, modality), rows, embeddings.type_rows[kind])
            hidden.append(self._read(modality, begun, inside[-1]))
        joint, mask = torch.cat(hidden, 1), torch.cat(inside, 1)[:, None, None]
        for layer in self.layers:
            joint = padded_layer(layer, joint, mask)
        pooled = torch.tanh(self.pooler(joint[:, 0]))
        return self.head.classifier(pooled if self.head.widen is None else self.head.widen(pooled))

    def _read(self, modality: str, rows: Tensor, inside: Tensor) -> Tensor:
        """Rows [B, R, C] of a modality as the joint layers take them. inside [B, R] bool."""
        return rows


def _inside(rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]


def _feature_rows(own: FeatureEmbeddings, rows: Tensor, type_row: Tensor) -> Tensor:
    content = own.projection_norm(own.projection(rows))
    if own.block is not None:
        content = own.block_norm(F.gelu(own.block(content)))
    return own.norm(content + own.position.weight[: rows.shape[1]] + type_row)


def padded_layer(layer: MemoBertLayer, hidden: Tensor, mask: Tensor) -> Tensor:
    """One layer of padded rows [B, R, C]; mask [B, 1, 1, R] bool: rows that are there."""
    batch, length, width = hidden.shape
    query, key, value = layer.qkv(hidden).view(batch, length, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    attended = attended.transpose(1, 2).reshape(batch, length, width)
    hidden = layer.attention_norm(hidden + layer.attention_output(attended))
    return layer.output_norm(hidden + layer.output(F.gelu(layer.intermediate(hidden))))

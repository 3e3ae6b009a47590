"""Prediction heads; each reads hidden rows [n, C] of its targets only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.model.heads import Head
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.linear import linear_gelu
from memofast.ops.philox import Place, drop_threshold, hidden_keep_mask, keep_scale, site


class HeadTransform(nn.Module):
    """LN(gelu(W h + b)), the part that all heads share in form."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Args: hidden [n, C]. Returns: [n, C]."""
        return self.norm(linear_gelu(self.dense, hidden))


class TiedHead(nn.Module):
    """A transform, then a product with a weight of the embeddings; only the bias [outputs] is the head's own.

    For words the weight is the word table [vocab, C]; for features the transposed projection [width, C]; for an input
    table its entries [entries, C].
    """

    def __init__(self, config: MemoBertConfig, outputs: int):
        super().__init__()
        self.transform = HeadTransform(config)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Args: hidden [n, C]; weight [outputs, C]. Returns: [n, outputs]."""
        return F.linear(self.transform(hidden), weight, self.bias)


class WordHead(TiedHead):
    """A tied head over the word pieces."""

    def __init__(self, config: MemoBertConfig):
        super().__init__(config, config.vocab_size)

    def resize(self, words: int) -> None:
        """Add nothing to new word pieces, and forget those that are gone."""
        kept = min(words, len(self.bias))
        bias = torch.zeros(words, dtype=self.bias.dtype, device=self.bias.device)
        bias[:kept] = self.bias.detach()[:kept]
        self.bias = nn.Parameter(bias, self.bias.requires_grad)


class ClassifierHead(nn.Module):
    """A transform, then a linear map to the logits of `classes` classes."""

    def __init__(self, config: MemoBertConfig, classes: int):
        super().__init__()
        self.transform = HeadTransform(config)
        self.classifier = nn.Linear(config.hidden_size, classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """Args: hidden [n, C]. Returns: [n, classes]."""
        return self.classifier(self.transform(hidden))


class PooledClassifierHead(nn.Module):
    """LN(gelu(W h + b)) of twice the width, then a linear map to the logits of `classes` classes. Source: MEmoBERT's
    emo_classifier."""

    def __init__(self, config: MemoBertConfig, classes: int):
        super().__init__()
        width = 2 * config.hidden_size
        self.dense, self.norm = nn.Linear(config.hidden_size, width), nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.classifier = nn.Linear(width, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Args: pooled [n, C]. Returns: [n, classes]."""
        return self.classifier(self.norm(linear_gelu(self.dense, pooled)))


class PreTrainingHeads(nn.Module):
    """The heads of pre-training by name: those of the published objectives, and what others ask for. A pooled row as it
    is needs no module."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.kinds = config.every_head
        for name, head in self.kinds.items():
            if head.kind == "table" and config.tables.get(name) != head.outputs:
                raise ValueError(
                    f"head {name} is of {head.outputs} entries, the input table of {config.tables.get(name)}"
                )
            if (module := _module_of(head, config)) is not None:
                self.add_module(name, module)


def _module_of(head: Head, config: MemoBertConfig) -> nn.Module | None:
    if head.kind == "words":
        return WordHead(config)
    if head.kind == "rows":
        return TiedHead(config, config.feature_width(head.modality))
    if head.kind == "table":
        return TiedHead(config, head.outputs)
    if head.kind == "soft_labels":
        return ClassifierHead(config, config.visual_classes)
    if head.kind == "classes":
        return ClassifierHead(config, head.outputs)
    if head.kind == "pooled_classes":
        return PooledClassifierHead(config, head.outputs)
    return nn.Linear(config.hidden_size, head.outputs) if head.outputs else None


class EmotionHead(nn.Module):
    """Pooled rows to one output per class, or to the value of a regression.

    `emocls`: dropout, then a linear map. `emocls_inner`: the original's emocls, with dropout, W h + b and gelu before
    these. `vqa`: the original's classifier without dropout, LN(gelu(W h + b)) of twice the width, then a linear map;
    `small_vqa`: the same of the model's own width.
    """

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        width, kind = config.hidden_size, config.emotion_head
        self.dropout, self.widen = config.hidden_dropout_prob, None
        if kind in ("vqa", "small_vqa"):
            self.dropout, width = 0.0, width * (2 if kind == "vqa" else 1)
            self.widen = nn.Sequential(
                nn.Linear(config.hidden_size, width), nn.GELU(), nn.LayerNorm(width, eps=config.layer_norm_eps)
            )
        elif kind == "emocls_inner":
            self.widen = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.sites = [site(config.num_hidden_layers + further, Place.HEAD) for further in (1, 2)]
        self.classifier = nn.Linear(width, config.num_labels)

    def forward(self, pooled: Tensor, sample_keys: Tensor, rng: Tensor | None) -> Tensor:
        """Args: pooled [B, C]; sample_keys [B] int64; rng [2] int64, needed in training mode with dropout. Returns: [B,
        classes]."""
        pooled = self._dropped(pooled, self.sites[0], sample_keys, rng)
        if self.widen is not None:
            pooled = self._dropped(self.widen(pooled), self.sites[1], sample_keys, rng)
        return self.classifier(pooled)

    def _dropped(self, rows: Tensor, site: int, sample_keys: Tensor, rng: Tensor | None) -> Tensor:
        if not self.training or not drop_threshold(self.dropout):
            return rows
        samples = torch.arange(rows.shape[0] + 1, device=rows.device, dtype=torch.int32)
        keep = hidden_keep_mask(rng, site, sample_keys, samples, *rows.shape, self.dropout)
        return rows * keep * keep_scale(self.dropout)

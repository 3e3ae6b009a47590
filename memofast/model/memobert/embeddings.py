"""Text, visual and speech rows to the packed hidden rows that the encoder reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops
from memofast.data.modality import FEATURES
from memofast.data.view import View
from memofast.model.memobert.configuration import MemoBertConfig, padded_width
from memofast.model.memobert.linear import is_plain
from memofast.ops.philox import Place, site


class FeatureEmbeddings(nn.Module):
    """What one feature modality adds: projection, mask vector in raw feature width, inner norm, positions, outer
    norm."""

    def __init__(self, config: MemoBertConfig, modality: str):
        super().__init__()
        self.width = config.feature_width(modality)
        self.projection = nn.Linear(self.width, config.hidden_size)
        self.mask = nn.Parameter(torch.empty(self.width))
        self.projection_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.position = nn.Embedding(config.feature_positions(modality), config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @torch.no_grad()
    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Let a fresh projection W x + b begin as W (x - mean) / std + b: rows that share a large mean would all look
        alike to its norm.

        Args: mean, std [width], of the rows to come; a column that never changes keeps its weight.
        """
        std = torch.where(std > 1e-4, std, 1.0)
        self.projection.weight /= std
        self.projection.bias -= self.projection.weight @ mean

    @property
    def padded_weight(self) -> Tensor:
        """Projection weight [C, width padded to a multiple of 8]; the added columns are zero, so that padding never
        counts."""
        return F.pad(self.projection.weight, (0, padded_width(self.width) - self.width))

    def forward(
        self, features: Tensor, source: Tensor | None, offsets: Tensor, positions: Tensor | None = None
    ) -> ops.FeatureRows:
        """Operands of `ops.embed`.

        Args: features [rows, padded width]; source [rows] int32 or None, the row each row reads, -1 for the mask
            vector; positions: see `View`.
        """
        features = features.to(compute_type(self.projection.weight))
        if is_plain(self.projection):
            weight, bias = self.padded_weight, self.projection.bias
            projected = F.linear(features, weight, bias)
            vector = F.pad(self.mask, (0, padded_width(self.width) - self.width))
            mask = None if source is None else F.linear(vector[None], weight, bias)[0]
        else:
            projected = self.projection(features[:, : self.width])
            mask = None if source is None else self.projection(self.mask[None])[0]
        return ops.FeatureRows(
            projected=projected,
            source=source,
            offsets=offsets,
            mask=mask,
            position=self.position.weight,
            feature_gamma=self.projection_norm.weight,
            feature_beta=self.projection_norm.bias,
            gamma=self.norm.weight,
            beta=self.norm.bias,
            positions=positions,
        )


class MemoBertEmbeddings(nn.Module):
    """Text rows as in BERT; feature rows as LN(LN(projection or mask vector) + position + type); then dropout."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.eps = config.layer_norm_eps
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.types = nn.Embedding(3, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        for modality in FEATURES:
            present = config.feature_width(modality) > 0
            setattr(self, modality, FeatureEmbeddings(config, modality) if present else None)

    def forward(self, view: View, rng: Tensor | None) -> Tensor:
        """Returns: [N, C] packed rows, sample by sample text, visual, speech, in the compute type."""
        batch = view.batch
        text = ops.TextRows(
            batch.token_ids if view.token_ids is None else view.token_ids,
            batch.text_offsets,
            self.word.weight,
            self.position.weight,
            self.norm.weight,
            self.norm.bias,
            positions=view.positions.get("text"),
            added=view.added,
        )
        features = {modality: self._features(modality, view) for modality in FEATURES}
        return ops.embed(
            text,
            self.types.weight,
            batch.offsets,
            **features,
            rows=batch.rows,
            p=self.dropout if self.training else 0.0,
            eps=self.eps,
            rng=rng,
            sample_keys=batch.sample_keys,
            site=site(0, Place.EMBEDDING, view.draw),
            dtype=compute_type(self.word.weight),
        )

    def _features(self, modality: str, view: View) -> ops.FeatureRows | None:
        rows, own = view.batch.rows_of(modality), getattr(self, modality)
        if rows is None:
            return None
        if own is None:
            raise ValueError(f"the batch has {modality} rows, but this model was configured with {modality}_width 0")
        if rows.shape[1] != padded_width(own.width):
            raise ValueError(
                f"{modality} rows must be {padded_width(own.width)} wide ({modality}_width {own.width}, padded), "
                f"got {rows.shape[1]}"
            )
        offsets = view.batch.offsets_of(modality)
        return own(rows, view.sources.get(modality), offsets, view.positions.get(modality))


def compute_type(weight: Tensor) -> torch.dtype:
    """The type matrix products run in: autocast's where it is on for the weight's device, else the weight's own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype

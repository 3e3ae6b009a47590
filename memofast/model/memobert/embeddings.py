"""Text, visual and speech rows to the packed hidden rows that the encoder reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops
from memofast.data.batch import PackedBatch
from memofast.data.feature_statistics import changing
from memofast.data.modality import FEATURES
from memofast.data.view import View
from memofast.model.face_networks.network import FaceNetwork
from memofast.model.memobert.configuration import MemoBertConfig, padded_width
from memofast.model.memobert.linear import is_plain, linear_gelu
from memofast.ops.philox import Place, drop_threshold, hidden_keep_mask, keep_scale, site


def sinusoid_table(rows: int, width: int) -> Tensor:
    """PE[p, 2k] = sin(p / 10000^(2k / width)), PE[p, 2k + 1] = cos of the same: [rows, width] float64. Source: Vaswani
    et al., 2017."""
    even = torch.arange(0, width, 2, dtype=torch.float64)
    angles = torch.arange(rows, dtype=torch.float64)[:, None] / 10000 ** (even / width)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[:, :width]


class SinusoidPositions(nn.Module):
    """A position table [rows, width] that is computed, not trained, and in no checkpoint."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.register_buffer("weight", sinusoid_table(rows, width).to(torch.get_default_dtype()), persistent=False)

    @torch.no_grad()
    def compute(self) -> None:
        """Write the table into memory that a loader left unwritten."""
        self.weight.copy_(sinusoid_table(*self.weight.shape))


class FeatureEmbeddings(nn.Module):
    """What one feature modality adds: network of raw rows, projection, mask vector in feature width, norm, with
    `config.projection_block` LN(gelu(W dropout(x) + b)) of that, positions, outer norm.

    Source of the block: MEmoBERT's use_projs_av_modality; its dropout behind the norm is left to that of all rows.
    """

    def __init__(self, config: MemoBertConfig, modality: str):
        super().__init__()
        self.width = config.feature_width(modality)
        self.network = self.network_of(config, modality)
        self.projection = nn.Linear(self.width, config.hidden_size)
        self.mask = nn.Parameter(torch.empty(self.width))
        self.projection_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        positions = SinusoidPositions if config.position_encoding == "sinusoid" else nn.Embedding
        self.position = positions(config.feature_positions(modality), config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.block = None
        if config.projection_block:
            self.block = nn.Linear(config.hidden_size, config.hidden_size)
            self.block_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.place = Place.VISUAL_BLOCK if modality == "visual" else Place.SPEECH_BLOCK

    @staticmethod
    def network_of(config: MemoBertConfig, modality: str) -> nn.Module | None:
        """What makes feature rows of raw ones; None: rows come ready."""
        return FaceNetwork(**config.face) if config.face and modality == "visual" else None

    @torch.no_grad()
    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Let a fresh projection W x + b begin as W (x - mean) / std + b: rows that share a large mean would all look
        alike to its norm.

        Args: mean, std [width], of the rows to come; a column that never changes begins with weight 0. Rows of which
            none changes are left as they are: the norm would make whole numbers of their rounding.
        """
        moves = changing(mean, std)
        if not moves.any():
            return
        self.projection.weight /= torch.where(moves, std, torch.inf)
        self.projection.bias -= self.projection.weight @ mean

    @property
    def padded_weight(self) -> Tensor:
        """Projection weight [C, width padded to a multiple of 8]; the added columns are zero, so that padding never
        counts."""
        return F.pad(self.projection.weight, (0, padded_width(self.width) - self.width))

    def forward(
        self,
        features: Tensor,
        source: Tensor | None,
        offsets: Tensor,
        positions: Tensor | None,
        drop: Callable[[Tensor], Tensor],
    ) -> ops.FeatureRows:
        """Operands of `ops.embed`.

        Args: features [rows, padded width]; source [rows] int32 or None, the row each row reads, -1 for the mask
            vector; positions: see `View`; drop: dropout of rows [rows, C] before the block.
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
        norm = self.projection_norm
        if self.block is not None:
            projected = linear_gelu(self.block, drop(self._normed(projected, mask, source)))
            mask = source = None
            norm = self.block_norm
        return ops.FeatureRows(
            projected=projected,
            source=source,
            offsets=offsets,
            mask=mask,
            position=self.position.weight,
            feature_gamma=norm.weight,
            feature_beta=norm.bias,
            gamma=self.norm.weight,
            beta=self.norm.bias,
            positions=positions,
        )

    def _normed(self, projected: Tensor, mask: Tensor | None, source: Tensor | None) -> Tensor:
        """What each row reads, through the inner norm, whose statistics are in fp32."""
        if source is not None:
            read = torch.where(source < 0, projected.shape[0], source).to(torch.int64)
            projected = torch.cat((projected, mask[None]))[read]  # not index_select, whose gradient a GPU adds anyhow
        norm, wide = self.projection_norm, torch.promote_types(projected.dtype, torch.float32)
        weights = norm.weight.to(wide), norm.bias.to(wide)
        return F.layer_norm(projected.to(wide), norm.normalized_shape, *weights, norm.eps).to(projected.dtype)


class MemoBertEmbeddings(nn.Module):
    """Text rows as in BERT; feature rows as LN(LN(projection or mask vector) + position + type); then dropout."""

    features_class = FeatureEmbeddings

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.eps = config.layer_norm_eps
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.types = nn.Embedding(2 if config.shared_types else 3, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(entries, config.hidden_size) for name, entries in config.tables.items()}
        )
        for modality in FEATURES:
            present = config.feature_width(modality) > 0
            setattr(self, modality, self.features_class(config, modality) if present else None)

    def forward(self, view: View, rng: Tensor | None) -> Tensor:
        """Returns: [N, C] packed rows, sample by sample text, visual, speech, in the compute type."""
        (view,) = self.perceived([view], rng)
        batch = view.batch
        text = ops.TextRows(
            batch.token_ids if view.token_ids is None else view.token_ids,
            batch.text_offsets,
            self.word.weight,
            self.position.weight,
            self.norm.weight,
            self.norm.bias,
            positions=view.positions.get("text"),
            added=self._added(view),
        )
        features = {modality: self._features(modality, view, rng) for modality in FEATURES}
        return ops.embed(
            text,
            self.type_rows,
            batch.offsets,
            **features,
            rows=batch.rows,
            p=self.dropout if self.training else 0.0,
            eps=self.eps,
            rng=rng,
            sample_keys=view.keys,
            site=site(0, Place.EMBEDDING),
            dtype=compute_type(self.word.weight),
        )

    def perceived(self, views: Sequence[View], rng: Tensor | None) -> list[View]:
        """The views, with feature rows in place of raw ones, which are made once for all views of a batch."""
        if not any(own is not None and own.network is not None for own in (self.visual, self.speech)):
            return list(views)
        batches: dict[int, PackedBatch] = {}
        for view in views:
            if id(view.batch) not in batches:
                batches[id(view.batch)] = self._perceived(view.batch, rng)
        return [replace(view, batch=batches[id(view.batch)]) for view in views]

    def _perceived(self, batch: PackedBatch, rng: Tensor | None) -> PackedBatch:
        for modality in FEATURES:
            own, rows = getattr(self, modality), batch.rows_of(modality)
            if own is not None and own.network is not None and rows is not None and own.network.takes(rows):
                made = own.network(rows, batch.offsets_of(modality), batch.sample_keys, rng)
                made = F.pad(made.float(), (0, padded_width(own.width) - own.width))
                batch = replace(batch, **{modality: made})
        return batch

    def _added(self, view: View) -> Tensor | None:
        """What tokens add to their embeddings [sum T, C]: entries of tables, and what the view itself gives.

        A table's last entry stands for what is unknown; as the padding of the original's tables, it takes no gradient
        where it is added, and learns through a tied head alone.
        """
        added = view.added
        for name, entries in view.tables.items():
            weight = self.tables[name].weight
            nothing = torch.where(entries < 0, weight.shape[0], entries).to(torch.int64)
            own = torch.cat((weight[:-1], weight[-1:].detach(), weight.new_zeros(1, weight.shape[1])))[nothing]
            added = own if added is None else added + own
        return added

    @property
    def type_rows(self) -> Tensor:
        """Token types [3, C] of text, faces and speech, of which the last two may be one."""
        types = self.types.weight
        return types if types.shape[0] == 3 else torch.cat((types, types[1:]))

    def _features(self, modality: str, view: View, rng: Tensor | None) -> ops.FeatureRows | None:
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

        def drop(inner: Tensor) -> Tensor:
            if not self.training or not drop_threshold(self.dropout):
                return inner
            keep = hidden_keep_mask(rng, site(0, own.place), view.keys, offsets, *inner.shape, self.dropout)
            return inner * keep * keep_scale(self.dropout)

        return own(rows, view.sources.get(modality), offsets, view.positions.get(modality), drop)


def compute_type(weight: Tensor) -> torch.dtype:
    """The type matrix products run in: autocast's where it is on for the weight's device, else the weight's own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype

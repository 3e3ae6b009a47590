"""The post-norm BERT encoder over packed rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops
from memofast.data.batch import PackedBatch
from memofast.model.configuration import MemoBertConfig
from memofast.ops.philox import Place, site


@dataclass
class ReadRows:
    """Rows of the last layer that somebody reads, as packed sequences of their own; their dropout counts positions among them.

    rows [n] int64: rows of the batch. offsets [sequences + 1] int32, sample_keys [sequences] int64: as in a packed batch.
    """

    rows: Tensor
    offsets: Tensor
    sample_keys: Tensor

    @classmethod
    def of(cls, batch: PackedBatch, lists: list[Tensor]) -> ReadRows:
        """Lists of ascending rows [n] int64, one after another: per list a sequence for each sample, and one of key 0 for what fills it up."""
        offsets, keys, first = [], [], 0
        for rows in lists:
            offsets.append(torch.searchsorted(rows, batch.offsets.to(torch.int64)) + first)
            keys += [batch.sample_keys, batch.sample_keys.new_zeros(1)]
            first += rows.shape[0]
        return cls(torch.cat(lists), torch.cat(offsets).to(torch.int32), torch.cat(keys[:-1]))


class MemoBertLayer(nn.Module):
    """y = LN(x + Drop(W_o Attn(x))); z = LN(y + Drop(W_2 gelu(W_1 y))). Rows of `qkv` are ordered query, key, value."""

    def __init__(self, config: MemoBertConfig, index: int):
        super().__init__()
        width = config.hidden_size
        self.index = index
        self.heads = config.num_attention_heads
        self.hidden_dropout = config.hidden_dropout_prob
        self.attention_dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(width, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, width)
        self.output_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, batch: PackedBatch, rng: Tensor | None, read: ReadRows | None = None) -> Tensor:
        """One layer.

        Args: hidden [N, C]; read: compute these rows alone. Returns: [N, C], or [n, C] of the rows read; rows past the last offset stay zero.
        """
        rows, width = hidden.shape
        attended = ops.attention(
            self.qkv(hidden).view(rows, 3, self.heads, width // self.heads),
            batch.offsets,
            p=self.attention_dropout if self.training else 0.0,
            rng=rng,
            sample_keys=batch.sample_keys,
            site=site(self.index + 1, Place.ATTENTION),
            longest=batch.longest,
        ).view(rows, width)
        sequences = batch
        if read is not None:
            sequences = read
            attended, hidden = attended.index_select(0, read.rows), hidden.index_select(0, read.rows)
        attended = F.linear(attended, self.attention_output.weight)
        hidden = self._add_norm(
            attended, hidden, self.attention_output, self.attention_norm, Place.ATTENTION_OUTPUT, sequences, rng
        )
        inner = ops.bias_gelu(F.linear(hidden, self.intermediate.weight), self.intermediate.bias)
        inner = F.linear(inner, self.output.weight)
        return self._add_norm(inner, hidden, self.output, self.output_norm, Place.FEED_FORWARD_OUTPUT, sequences, rng)

    def _add_norm(
        self,
        x: Tensor,
        residual: Tensor,
        linear: nn.Linear,
        norm: nn.LayerNorm,
        place: Place,
        sequences: PackedBatch | ReadRows,
        rng: Tensor | None,
    ) -> Tensor:
        return ops.dropout_add_norm(
            x,
            residual,
            norm.weight,
            norm.bias,
            bias=linear.bias,
            p=self.hidden_dropout if self.training else 0.0,
            eps=norm.eps,
            rng=rng,
            sample_keys=sequences.sample_keys,
            offsets=sequences.offsets,
            site=site(self.index + 1, place),
        )


class MemoBertEncoder(nn.Module):
    """`num_hidden_layers` layers, one after another."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.layers = nn.ModuleList(MemoBertLayer(config, index) for index in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, batch: PackedBatch, rng: Tensor | None, read: ReadRows | None = None) -> Tensor:
        """All layers; with `read` the last computes these rows alone, and they are what is returned."""
        *inner, last = self.layers
        for layer in inner:
            hidden = layer(hidden, batch, rng)
        return last(hidden, batch, rng, read)

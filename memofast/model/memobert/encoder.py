"""The post-norm BERT encoder over packed rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops
from memofast.data.batch import PackedBatch
from memofast.data.view import View
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.linear import is_plain, linear_gelu, without_bias
from memofast.ops.philox import Place, site


@dataclass
class ReadRows:
    """Rows of the last layer that somebody reads, sample by sample; their dropout counts positions among them.

    rows [n] int64: rows of the batch, ascending. offsets [B + 1] int32: first row read of each sample; what fills lists
    up comes after the last. places [n] int64: where the lists' entries are among rows; None: as they are.
    """

    rows: Tensor
    offsets: Tensor
    places: Tensor | None

    @classmethod
    def of(cls, batch: PackedBatch, lists: list[Tensor]) -> ReadRows:
        """lists: ascending rows [n] int64 each, which may end in rows of no sample. The same row may be in several."""
        rows, places = lists[0], None
        if len(lists) > 1:
            rows, order = torch.cat(lists).sort(stable=True)
            places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return cls(rows, torch.searchsorted(rows, batch.offsets.to(torch.int64)).to(torch.int32), places)

    def listed(self, hidden: Tensor) -> Tensor:
        """Computed rows [n, C] in the order of the lists, one after another."""
        return hidden if self.places is None else hidden.index_select(0, self.places)


class MemoBertLayer(nn.Module):
    """y = LN(x + Drop(W_o Attn(x))); z = LN(y + Drop(W_2 gelu(W_1 y))). Rows of `qkv` are ordered query, key, value.

    The four linear maps may be replaced, hooked or parametrised (LoRA); see `memofast.model.linear`.
    """

    def __init__(self, config: MemoBertConfig, index: int, heads: int | None = None):
        super().__init__()
        width = config.hidden_size
        self.index = index
        self.heads = heads or config.num_attention_heads
        self.hidden_dropout = config.hidden_dropout_prob
        self.attention_dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(width, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, width)
        self.output_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, view: View, rng: Tensor | None, read: ReadRows | None = None) -> Tensor:
        """One layer.

        Args: hidden [N, C] of the view's batch; read: compute these rows alone. Returns: [N, C], or [n, C] of the rows
            read; rows past the last offset stay zero.
        """
        asked = hidden if read is None else hidden.index_select(0, read.rows)
        attended = without_bias(self.attention_output, self._attended(hidden, asked, view, rng, read))
        sequences = view.keys, (view.batch if read is None else read).offsets
        places = (Place.ATTENTION_OUTPUT, Place.FEED_FORWARD_OUTPUT)
        first, second = (site(self.index + 1, place) for place in places)
        asked = self._add_norm(*attended, asked, self.attention_norm, first, *sequences, rng)
        inner = without_bias(self.output, linear_gelu(self.intermediate, asked))
        return self._add_norm(*inner, asked, self.output_norm, second, *sequences, rng)

    def _attended(self, hidden: Tensor, asked: Tensor, view: View, rng: Tensor | None, read: ReadRows | None) -> Tensor:
        """Attn(x): queries of the rows asked, keys and values of all."""
        width, batch = hidden.shape[1], view.batch
        options = {
            "p": self.attention_dropout if self.training else 0.0,
            "rng": rng,
            "sample_keys": view.keys,
            "site": site(self.index + 1, Place.ATTENTION),
            "longest": batch.longest,
        }
        if read is None:
            qkv = self.qkv(hidden).view(-1, 3, self.heads, width // self.heads)
            return ops.attention(qkv, batch.offsets, **options).view(-1, width)
        if is_plain(self.qkv):
            weights, biases = (x.split((width, 2 * width)) for x in (self.qkv.weight, self.qkv.bias))
            q, kv = F.linear(asked, weights[0], biases[0]), F.linear(hidden, weights[1], biases[1])
        else:
            q, kv = self.qkv(hidden).split((width, 2 * width), dim=1)
            q, kv = q.index_select(0, read.rows), kv.contiguous()
        q, kv = q.view(-1, self.heads, width // self.heads), kv.view(-1, 2, self.heads, width // self.heads)
        return ops.cross_attention(q, kv, read.offsets, batch.offsets, **options).view(-1, width)

    def _add_norm(
        self,
        x: Tensor,
        bias: Tensor | None,
        residual: Tensor,
        norm: nn.LayerNorm,
        site: int,
        sample_keys: Tensor,
        offsets: Tensor,
        rng: Tensor | None,
    ) -> Tensor:
        return ops.dropout_add_norm(
            x,
            residual,
            norm.weight,
            norm.bias,
            bias=bias,
            p=self.hidden_dropout if self.training else 0.0,
            eps=norm.eps,
            rng=rng,
            sample_keys=sample_keys,
            offsets=offsets,
            site=site,
        )


class MemoBertEncoder(nn.Module):
    """`num_hidden_layers` layers, one after another."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.layers = nn.ModuleList(MemoBertLayer(config, index) for index in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, view: View, rng: Tensor | None, read: ReadRows | None = None) -> Tensor:
        """All layers; with `read` the last computes these rows alone, which are returned list by list."""
        *inner, last = self.layers
        for layer in inner:
            hidden = layer(hidden, view, rng)
        hidden = last(hidden, view, rng, read)
        return hidden if read is None else read.listed(hidden)

"""Layers of a Perceiver, whose parameters have transformers' names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast import ops
from memofast.model.memobert.linear import linear_gelu
from memofast.ops.philox import Place, drop_threshold, keep_scale, site
from memofast.ops.separable_attention import keep_mask


class Dropout:
    """Where a forward pass draws its dropout of probabilities. rng [2] int64: seed and update; keys [B] int64; p: 0
    outside of training."""

    def __init__(self, p: float, rng: Tensor | None, keys: Tensor):
        if drop_threshold(p) and rng is None:
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        self.p, self.rng, self.keys = p, rng, keys

    def options(self, layer: int) -> dict:
        """Keywords of the operators of attention."""
        return {"p": self.p, "rng": self.rng, "sample_keys": self.keys, "site": site(layer, Place.ATTENTION)}

    def applied(self, probabilities: Tensor, layer: int, first: int = 0) -> Tensor:
        """Probabilities [B, L, rows], of rows numbered from `first`, as dropout leaves them."""
        if not drop_threshold(self.p):
            return probabilities
        at = site(layer, Place.ATTENTION)
        keep = keep_mask(self.rng, at, self.keys, *probabilities.shape[1:], self.p, first)
        return probabilities * keep * keep_scale(self.p)


class Projections(nn.Module):
    """Norms and linear maps of an attention; it is called by nobody, as each layer uses them in its own way."""

    def __init__(self, width: int, rows: int | None, inner: int):
        super().__init__()
        self.layernorm1 = nn.LayerNorm(width)
        if rows is not None:
            self.layernorm2 = nn.LayerNorm(rows)
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(rows or width, inner)
        self.value = nn.Linear(rows or width, inner)


class Mlp(nn.Module):
    """W2 gelu(W1 x)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.dense1 = nn.Linear(width, inner)
        self.dense2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        return self.dense2(linear_gelu(self.dense1, rows)).view(x.shape)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward part. rows: width of what is attended to, None: itself; inner: of queries,
    keys and values."""

    def __init__(self, width: int, rows: int | None, inner: int, widening: int):
        super().__init__()
        output = nn.ModuleDict({"dense": nn.Linear(inner, width)})
        self.attention = nn.ModuleDict({"self": Projections(width, rows, inner), "output": output})
        self.layernorm = nn.LayerNorm(width)
        self.mlp = Mlp(width, widening * width)

    @property
    def projections(self) -> Projections:
        return self.attention["self"]

    def end(self, context: Tensor, residual: Tensor | None) -> Tensor:
        """What comes after the context [n, inner]: projection, residual and feed-forward part."""
        attended = self.attention["output"]["dense"](context)
        if residual is not None:
            attended = attended + residual
        return attended + self.mlp(self.layernorm(attended))


class SelfLayer(Layer):
    """Latents that attend to those of their own sample. number: of the layer, for dropout."""

    def __init__(self, width: int, heads: int, widening: int):
        super().__init__(width, None, width, widening)
        self.heads = heads

    def forward(self, latents: Tensor, offsets: Tensor, dropout: Dropout, number: int) -> Tensor:
        """Args: latents [B L, D]; offsets [B+1] int32. Returns: [B L, D]."""
        own, width = self.projections, latents.shape[1]
        maps = (own.query, own.key, own.value)
        weight, bias = torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps])
        qkv = F.linear(own.layernorm1(latents), weight, bias).view(-1, 3, self.heads, width // self.heads)
        context = ops.attention(qkv, offsets, **dropout.options(number))
        return self.end(context.view(-1, width), latents)

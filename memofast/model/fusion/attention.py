"""Multi-head attention of few vectors of a sample to one another, and over the samples of a batch as originals have
it."""

from __future__ import annotations

from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.draws import Draws


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, dropout: float, draws: Draws) -> Tensor:
    """Of each head softmax(q k^T / sqrt(head width)) v, the probabilities with dropout.

    Args: q [B, Q, C]; k, v [B, K, C]. Returns: [B, Q, C].
    """
    q, k, v = (one.unflatten(2, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(-1)
    weights = draws.dropped(weights.flatten(1), dropout).view(weights.shape)
    return (weights @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attention with maps of its own. width: of what asks and of what comes out; source: of what is read."""

    def __init__(self, width: int, source: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise MemofastError(f"fusion: {heads} heads of attention do not divide a width of {width}; change one")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(source, width), nn.Linear(source, width)
        self.output = nn.Linear(width, width)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.zeros_(layer.bias)

    def forward(self, asking: Tensor, read: Tensor, draws: Draws) -> Tensor:
        """Args: asking [B, Q, width]; read [B, K, source]. Returns: [B, Q, width]."""
        q, k, v = self.query(asking), self.key(read), self.value(read)
        return self.output(attend(q, k, v, self.heads, self.dropout, draws))


class AttentionOverBatch(Attention):
    """Attention of each sample to all samples of the batch: what 2-D inputs are to `nn.MultiheadAttention`, and so what
    several originals compute."""

    def forward(self, asking: Tensor, read: Tensor, draws: Draws) -> Tensor:
        """Args: asking [B, width]; read [B, source]. Returns: [B, width]."""
        return super().forward(asking[None], read[None], draws)[0]


class AttendingTokens(nn.Module):
    """LN(x + attention(x, x)) of the vectors of each sample."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = Attention(width, width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.dropout = dropout

    def forward(self, tokens: Tensor, draws: Draws) -> Tensor:
        """Args: tokens [B, R, width]. Returns: the same shape."""
        attended = self.attention(tokens, tokens, draws)
        return self.norm(tokens + draws.dropped(attended.flatten(1), self.dropout).view(tokens.shape))

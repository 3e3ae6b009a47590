"""LSTMs over rows of true lengths."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.model.draws import Draws
from memofast.model.sequence import recurrences
from memofast.model.sequence.rows import Rows


def states(lstm: nn.LSTM, rows: Rows, draws: Draws | None = None, p: float = 0.0) -> Tensor:
    """Hidden states [B, L, C] of the last layer. lstm: of one direction and `batch_first`, as what is past a sample's
    end then changes nothing before it. p: dropout between layers."""
    values = rows.values
    for layer in range(lstm.num_layers):
        if layer and draws is not None:
            values = draws.dropped(values, p)
        values = _one_direction(lstm, values, f"_l{layer}")
    return values


def _one_direction(lstm: nn.LSTM, values: Tensor, suffix: str) -> Tensor:
    """States [B, L, C] of one layer and direction, in fp32: torch has no LSTM of one direction in bf16 on a CPU, and
    its backward there computes gradients of rows that nobody asks for."""
    weights = [getattr(lstm, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    values = values.float()
    with torch.autocast(values.device.type, enabled=False):
        if values.is_cpu and torch.is_grad_enabled():
            of_rows, of_states, *biases = weights
            gates = F.linear(values.transpose(0, 1).contiguous(), of_rows, sum(biases))
            return recurrences.lstm(gates, of_states)[0].transpose(0, 1)
        start = values.new_zeros(1, values.shape[0], lstm.hidden_size)
        return torch.lstm(values, (start, start), weights, True, 1, 0.0, False, False, True)[0]


def both_ends(lstm: nn.LSTM, rows: Rows) -> tuple[Tensor, Tensor]:
    """Of a bidirectional layer the states [B, L, 2 C], 0 past a sample's end, and the last ones of both directions
    [2, B, C]; 0 where a sample has no rows."""
    forth = _one_direction(lstm, rows.values, "_l0")
    # each sample turned round, so that its padding comes last here too: torch's packed rows take ten times as long
    back = _one_direction(lstm, _turned(rows, rows.values), "_l0_reverse")
    found = rows.with_values(torch.cat((forth, _turned(rows, back)), 2))
    return found.values, torch.stack((rows.last(forth), rows.last(back)))


def _turned(rows: Rows, values: Tensor) -> Tensor:
    """Values [B, L, C] of the rows of each sample, last first."""
    place = torch.arange(values.shape[1], device=values.device)
    source = (rows.lengths[:, None] - 1 - place).clamp(min=0)
    return values.gather(1, source[..., None].expand(-1, -1, values.shape[2]))

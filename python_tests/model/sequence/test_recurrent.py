"""LSTMs over rows of true lengths against torch's packed sequences."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from memofast.model.sequence.recurrent import both_ends, states
from memofast.model.sequence.rows import Rows


def some_rows(requires_grad: bool = False) -> Rows:
    torch.manual_seed(0)
    rows = Rows(torch.randn(4, 9, 5), torch.tensor([7, 1, 9, 4]))
    return Rows(rows.with_values(rows.values).values.requires_grad_(requires_grad), rows.lengths)


def packed(lstm: nn.LSTM, rows: Rows):
    found, (ends, _) = lstm(pack_padded_sequence(rows.values, rows.lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(found, batch_first=True, total_length=9)[0], ends


def test_both_directions_and_their_gradients():
    lstm, grads = nn.LSTM(5, 6, batch_first=True, bidirectional=True), []
    for function in (both_ends, packed):
        rows = some_rows(requires_grad=True)
        found, ends = function(lstm, rows)
        lstm.zero_grad()
        ((found * torch.arange(12)).sum() + (ends**2).sum()).backward()
        grads.append([found.detach(), ends.detach(), rows.values.grad, *(weight.grad for weight in lstm.parameters())])
    for own, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-5)


def test_samples_without_rows_end_in_nothing():
    lstm, rows = nn.LSTM(5, 6, batch_first=True, bidirectional=True), some_rows()
    absent = Rows(rows.values, rows.lengths * torch.tensor([1, 0, 1, 0]))
    with torch.no_grad():
        found, ends = both_ends(lstm, absent)
    assert not found[[1, 3]].any() and not ends[:, [1, 3]].any() and ends[:, [0, 2]].any(2).all()


def test_several_layers_of_one_direction_also_under_autocast():
    lstm, rows = nn.LSTM(5, 6, 2, batch_first=True), some_rows()
    with torch.no_grad():
        wanted = lstm(rows.values)[0]
        torch.testing.assert_close(states(lstm, rows), wanted, rtol=0, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(states(lstm, rows), wanted, rtol=0, atol=1e-6)

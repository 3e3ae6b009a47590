"""An LSTM over the rows of all modalities side by side.

Source: MMSA 2.2.1's EF-LSTM (Williams et al., 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from memofast.model.bounds import Dropout, Layers, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.batch_norm import BatchNorm
from memofast.model.sequence.network import Network, NetworkOptions, Shape
from memofast.model.sequence.recurrent import states
from memofast.model.sequence.rows import Rows, aligned, averaged_as_padded


class EfLstmOptions(NetworkOptions):
    """width, layers: of the LSTM; dropout: between its layers, and before both layers that read its last state."""

    kind: Literal["ef_lstm"] = "ef_lstm"
    width: Width = 128
    layers: Layers = 4
    dropout: Dropout = 0.5


class EfLstm(Network):
    """y = W relu(W' LSTM([x_text; x_visual; x_speech])), read at each sample's last step.

    compat: BatchNorm of every time step, which makes a sample's steps depend on those of others; modalities of other
    lengths are brought to those of text as `rows.averaged_as_padded` says, and padding is read as rows.
    """

    state_names = (
        (r"norm\.num_batches_tracked", ""),
        (r"norm\.(.+)", r"norm.\1"),
        (r"lstm\.(.+)", r"lstm.\1"),
        (r"linear\.(.+)", r"hidden.\1"),
        (r"out\.(.+)", r"output.\1"),
    )

    def __init__(self, options: EfLstmOptions, shape: Shape):
        super().__init__()
        self.options, width = options, options.width
        self.order = [name for name in ("text", "speech", "visual") if name in shape.widths]  # as the original joins
        if options.compat:
            self.norm = BatchNorm(shape.lengths[next(iter(shape.widths))])
        self.lstm = nn.LSTM(sum(shape.widths.values()), width, options.layers, batch_first=True)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, shape.outputs)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        common = averaged_as_padded(rows) if self.options.compat else aligned(rows)
        values, p = torch.cat([common[name].values for name in self.order], 2), self.options.dropout
        values = self.norm(values) if self.options.compat else values
        joined = Rows(values, common[self.order[0]].lengths)
        last = draws.dropped(joined.last(states(self.lstm, joined, draws, p)), p)
        return Answers(self.output(draws.dropped(F.relu(self.hidden(last)), p)))

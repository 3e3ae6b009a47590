"""Encoders of one modality's rows to one vector of a sample, as tensor fusion networks have them.

Source: Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017, as MMSA 2.2.1 computes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data.modality import MODALITIES
from memofast.model.bounds import Dropout, Width
from memofast.model.draws import Draws
from memofast.model.sequence.batch_norm import BatchNorm
from memofast.model.sequence.network import NetworkOptions, Shape
from memofast.model.sequence.recurrent import states
from memofast.model.sequence.rows import Rows

ORDER = tuple(reversed(MODALITIES))  # in which the originals join vectors: speech, visual, text


class VectorOptions(NetworkOptions):
    """text_hidden: width of the LSTM over text; text_width, visual_width, speech_width: of each modality's vector.
    visual_dropout, speech_dropout: of the mean row, before its layers; that of text has none, as nothing stands between
    its one LSTM layer and its vector."""

    text_hidden: Width = 128
    text_width: Width = 128
    visual_width: Width = 128
    speech_width: Width = 16
    visual_dropout: Dropout = 0.0
    speech_dropout: Dropout = 0.0


class MeanEncoder(nn.Module):
    """Three layers over the mean of a sample's rows, after BatchNorm. Samples without rows take no part in its
    statistics; of a single sample there are none, it is normed by the running ones."""

    def __init__(self, rows: int, width: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.norm = BatchNorm(rows)
        self.layers = nn.ModuleList(nn.Linear(inputs, width) for inputs in (rows, width, width))

    def forward(self, rows: Rows, draws: Draws) -> Tensor:
        """Returns: [B, width]."""
        values = draws.dropped(self._normed(rows), self.dropout)
        for layer in self.layers:
            values = F.relu(layer(values))
        return values

    def _normed(self, rows: Rows) -> Tensor:
        means, present = rows.mean(), rows.lengths > 0
        if not self.training or present.all():
            return self.norm(means)
        own = self.norm(means[present])
        return own.new_zeros(means.shape).masked_scatter(present[:, None], own)


class LastStateEncoder(nn.Module):
    """A layer over the last state of an LSTM."""

    def __init__(self, rows: int, hidden: int, width: int):
        super().__init__()
        self.lstm = nn.LSTM(rows, hidden, batch_first=True)
        self.layer = nn.Linear(hidden, width)

    def forward(self, rows: Rows, draws: Draws) -> Tensor:
        """Returns: [B, width]."""
        return self.layer(rows.last(states(self.lstm, rows)))


class VectorEncoders(nn.ModuleDict):
    """The encoder of each modality that is read, in `ORDER`. widths: of their vectors."""

    state_names = (
        (r"text_subnet\.rnn\.(.+)", r"encoders.text.lstm.\1"),
        (r"text_subnet\.linear_1\.(.+)", r"encoders.text.layer.\1"),
        (r".+\.num_batches_tracked", ""),
        *(
            (rf"{theirs}_subnet\.{part}", rf"encoders.{own}.{own_part}")
            for own, theirs in (("visual", "video"), ("speech", "audio"))
            for part, own_part in (
                (r"norm\.(weight|bias|running_.+)", r"norm.\1"),
                (r"linear_1\.(.+)", r"layers.0.\1"),
                (r"linear_2\.(.+)", r"layers.1.\1"),
                (r"linear_3\.(.+)", r"layers.2.\1"),
            )
        ),
    )

    def __init__(self, options: VectorOptions, shape: Shape):
        super().__init__()
        self._compat = options.compat
        self.widths = {name: getattr(options, f"{name}_width") for name in ORDER if name in shape.widths}
        for name, width in self.widths.items():
            rows = shape.widths[name]
            if name == "text":
                self[name] = LastStateEncoder(rows, options.text_hidden, width)
            else:
                self[name] = MeanEncoder(rows, width, getattr(options, f"{name}_dropout"))

    def forward(self, rows: Mapping[str, Rows], draws: Draws) -> dict[str, Tensor]:
        """Vectors [B, width] by modality, 0 where a sample has no rows of it; with compat padding is read as rows."""
        read = {name: rows[name].whole() if self._compat else rows[name] for name in self}
        return {name: encoder(read[name], draws) * (read[name].lengths > 0)[:, None] for name, encoder in self.items()}


class Perceptron(nn.Module):
    """Three layers, with dropout before the first."""

    def __init__(self, inputs: int, width: int, outputs: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList([nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)])

    def forward(self, vectors: Tensor, draws: Draws) -> Tensor:
        """Args: vectors [B, inputs]. Returns: [B, outputs]."""
        hidden = draws.dropped(vectors, self.dropout)
        for layer in self.layers[:-1]:
            hidden = F.relu(layer(hidden))
        return self.layers[-1](hidden)


def names_of_layers(theirs: str, own: str) -> tuple[tuple[str, str], ...]:
    """State names of the three layers of a `Perceptron`, which the originals number from 1."""
    return tuple((rf"{theirs}_{number + 1}\.(.+)", rf"{own}.layers.{number}.\1") for number in range(3))

"""LSTMs over feature rows whose ends name the emotion of each sample, or emotions, or a value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from memofast.data.batch import PackedBatch, pad_rows
from memofast.data.modality import FEATURES
from memofast.data.view import View
from memofast.model.columns import Columns
from memofast.model.lstm_fusion.configuration import LstmFusionConfig, LstmFusionFile
from memofast.model.problems import EmotionOutputs
from memofast.model.weights import open_whole
from memofast.ops.philox import Place, drop_threshold, hidden_keep_mask, keep_scale, site


class RowsLstm(Columns):
    """A bidirectional LSTM over standardised rows; of a sample both directions' last states, zero where it has no
    rows."""

    def __init__(self, width: int, config: LstmFusionConfig):
        super().__init__(width)
        self.lstm = nn.LSTM(width, config.hidden_size, config.num_hidden_layers, batch_first=True, bidirectional=True)

    def forward(self, rows: Tensor, offsets: Tensor, source: Tensor | None) -> Tensor:
        """Args: rows [rows, padded width]; offsets [B+1] int32; source: see `View`. Returns: [B, 2 C]."""
        values = self.standardised(rows, source)
        lengths = offsets.diff().to(torch.int64)
        ends = values.new_zeros(len(lengths), 2 * self.lstm.hidden_size)
        present = lengths.nonzero().flatten()
        if not len(present):
            return ends
        packed = nn.utils.rnn.pack_padded_sequence(
            pad_rows(values, offsets)[present], lengths[present].cpu(), batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)
        return ends.index_put((present,), torch.cat([last[-2], last[-1]], 1).to(ends.dtype))


class LstmFusionForEmotion(EmotionOutputs, PreTrainedModel):
    """Logits of emotion classes, or a value: W_2 relu(W_1 [ends of all LSTMs]), with dropout before both maps. Source:
    MMSA's late fusion LSTM."""

    config_class = LstmFusionConfig
    base_model_prefix = "lstm_fusion"

    def __init__(self, config: LstmFusionConfig):
        super().__init__(config)
        self.inputs = nn.ModuleDict({entry["name"]: RowsLstm(entry["width"], config) for entry in config.inputs})
        self.join = nn.Linear(2 * config.hidden_size * len(self.inputs), config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @property
    def reads(self) -> Mapping[str, int]:
        """As `family.Reader.reads`."""
        return {entry["name"]: entry["width"] for entry in self.config.inputs}

    @property
    def streams(self) -> Mapping[str, str]:
        """As `family.Reader.streams`."""
        return {entry["name"]: entry["of"] for entry in self.config.inputs if entry["name"] not in FEATURES}

    @property
    def raw(self) -> frozenset[str]:
        """As `family.Reader.raw`; it reads none."""
        return frozenset()

    @property
    def longest(self) -> Mapping[str, int]:
        """As `family.Reader.longest`; there is no bound."""
        return {}

    def forward(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, classes]. rng [2] int64: seed and update, needed in training mode with dropout.

        Raises: `ValueError` for a view that gives rows other positions, which an LSTM does not have.
        """
        view = View.of(seen)
        if view.positions:
            raise ValueError("an LSTM reads rows in their order; it has no positions that a view could change")
        ends = torch.cat([self._end(name, lstm, view) for name, lstm in self.inputs.items()], 1)
        joined = torch.relu(self.join(self._dropped(ends, 0, view, rng)))
        return self.classifier(self._dropped(joined, 1, view, rng))

    def _end(self, name: str, lstm: RowsLstm, view: View) -> Tensor:
        batch = view.batch
        if name in FEATURES:
            rows, offsets = batch.rows_of(name), batch.offsets_of(name)
        elif name in batch.streams:
            rows, offsets = batch.streams[name].values, batch.streams[name].offsets
        else:
            raise ValueError(f"the model reads stream {name!r}, which the batch does not carry; pack it with it")
        if rows is None:
            return lstm.mean.new_zeros(batch.samples, 2 * self.config.hidden_size)
        return lstm(rows, offsets, view.sources.get(name))

    def _dropped(self, values: Tensor, layer: int, view: View, rng: Tensor | None) -> Tensor:
        p = self.config.hidden_dropout_prob
        if not (self.training and drop_threshold(p)):
            return values
        if rng is None:
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        samples = torch.arange(len(values) + 1, device=values.device, dtype=torch.int32)
        keep = hidden_keep_mask(rng, site(layer, Place.HEAD), view.keys, samples, *values.shape, p)
        return values * keep * keep_scale(p)


def open_lstm_fusion(folder: Path) -> LstmFusionForEmotion:
    """A trained model in evaluation mode from its folder. Raises: as `open_whole`."""
    return open_whole(folder, LstmFusionForEmotion, LstmFusionFile)


AutoConfig.register(LstmFusionConfig.model_type, LstmFusionConfig)
AutoModel.register(LstmFusionConfig, LstmFusionForEmotion)

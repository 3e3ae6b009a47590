"""The masked auto-encoder: most rows of faces and speech are left out before the encoder, and a decoder, which is no
part of the model, gives them back. Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022;
MEmoBERT's unfinished `uniter3m_mae`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from memofast import ops
from memofast.data.batch import Capacity, PackedBatch, StreamRows
from memofast.data.facts import Facts
from memofast.data.modality import FEATURES, MODALITIES
from memofast.data.view import Read, View
from memofast.model.heads import Head
from memofast.model.memobert.decoder import RowDecoder
from memofast.objectives.autoencoding_options import AutoencodingOptions, Sizes
from memofast.objectives.features import ROW_LOSSES
from memofast.objectives.left_out_rows import draws, seen_rows
from memofast.objectives.objective import LossSum, Objective, Room
from memofast.objectives.statistics import Statistics
from memofast.ops.philox import Purpose, rows_of


class MaskedAutoencoder(Objective):
    """Loss of the decoder's rows beside the original ones, over those that were left out; the encoder reads the others
    at their own positions.

    Streams `NAME.modality` of the rewritten batch hold all rows of its samples. Labels of its reads, all rows that the
    encoder sees of them, are their places there: row * 3 + number of the stream.
    """

    Options = AutoencodingOptions
    predictor = "mean feature"

    def __init__(self, name: str, options: AutoencodingOptions, sizes: Sizes | None = None):
        super().__init__(name, options)
        self.sizes = sizes
        length = {} if options.length is None else {"length": options.length}
        self.policy = ops.SpanPolicy(kind=options.policy, ratio=options.ratio, **length)

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"hidden": Head("hidden")}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("visual or speech rows",)

    @property
    def rebuilds(self) -> tuple[str, ...]:
        return tuple(modality for modality in FEATURES if modality not in self.hides)

    def check_shows(self) -> None:
        if self.options.shows == ["text"]:
            raise ValueError("shows: visual or speech rows are what it is about; add one of them")

    def eligible(self, facts: Facts) -> np.ndarray:
        return (self.rows_shown(facts)[:, 1:] >= 1).any(1)

    def can_be_of(self, batch: PackedBatch) -> bool:
        return any(batch.rows_of(modality) is not None for modality in self.rebuilds)

    def rewritten(self, batch: PackedBatch, selected: Tensor, rng: Tensor, purpose: Purpose) -> PackedBatch:
        kept, streams = {}, {}
        for modality in (name for name in MODALITIES if batch.rows_of(name) is not None):
            whole = batch.rows_as_stream(modality, selected)
            streams[f"{self.name}.{modality}"] = whole
            if modality in FEATURES:
                own = batch.rows_of_samples(modality, selected)
                left = torch.ones(len(batch.rows_of(modality)), dtype=torch.bool, device=own.device)
                left[own] = self._seen(whole, batch, rng, purpose)
                kept[modality] = left.nonzero().flatten()
        return batch.keeping(kept, streams)

    def _seen(self, whole: StreamRows, batch: PackedBatch, rng: Tensor, purpose: Purpose) -> Tensor:
        """Which rows of one modality the encoder sees: [rows] bool."""
        drawn = draws(self.options.masks, batch.sample_keys, rng, purpose, self.site)
        return seen_rows(whole, batch.sample_keys, self.policy, drawn, purpose, self.site)

    def views(self, first: View, selected: Tensor, rng: Tensor, purpose: Purpose) -> list[View]:
        batch, joint, labels, hidden = first.batch, [], [], 0
        for number, (modality, whole) in enumerate(self._whole(batch).items()):
            own = batch.rows_of_samples(modality, selected)
            kept = torch.arange(len(whole.values), device=own.device)
            if modality in FEATURES:
                kept = self._seen(whole, batch, rng, purpose).nonzero().flatten()
                hidden += len(whole.values) - len(kept)
                before = first.positions.get(modality)
                if before is None:
                    before = rows_of(batch.offsets_of(modality), len(batch.rows_of(modality)))[1].to(torch.int32)
                places = rows_of(whole.offsets, len(whole.values))[1].to(torch.int32)[kept]
                first.positions[modality] = before.index_copy(0, own, places)
            joint.append(batch.joint_rows(modality, own))
            labels.append(kept * len(MODALITIES) + number)
        rows, order = torch.cat(joint).sort()
        first.reads[self.name] = Read("hidden", rows, torch.cat(labels)[order], targets=hidden)
        return []

    def _whole(self, batch: PackedBatch) -> dict[str, StreamRows]:
        """By modality all rows of the samples served."""
        named = {modality: f"{self.name}.{modality}" for modality in MODALITIES}
        return {modality: batch.streams[name] for modality, name in named.items() if name in batch.streams}

    def room(self, capacity: Capacity) -> list[Room]:
        whole = {f"{self.name}.{modality}": capacity.of(modality) for modality in MODALITIES}
        return [Room(replace(capacity, streams={**capacity.streams, **whole}), capacity.rows)]

    def module(self) -> RowDecoder:
        if self.sizes is None:
            raise ValueError(f"objective {self.name} was built for no model")
        widths = {modality: self.sizes.feature_width(modality) for modality in self.rebuilds}
        return RowDecoder(self.sizes.hidden_size, widths, self.sizes.longest, self.options.decoder.model_dump())

    def scored(self, outputs: Sequence[Tensor], views: Sequence[View], module: RowDecoder) -> LossSum:
        whole, places = self._places(views[0])
        return self._summed(module(outputs[0], places, whole, views[0].batch.sample_keys), views[0])

    def trivial(self, statistics: Statistics, views: Sequence[View]) -> LossSum:
        whole = {name: of for name, of in self._whole(views[0].batch).items() if name in self.rebuilds}
        means = {name: statistics.mean_row(name).to(of.values.device) for name, of in whole.items()}
        return self._summed({name: mean.expand(len(whole[name].values), -1) for name, mean in means.items()}, views[0])

    def _places(self, view: View) -> tuple[dict[str, StreamRows], Tensor]:
        """All rows by modality, and where those read belong among them, one modality after another: [n] int64."""
        whole, read = self._whole(view.batch), view.reads[self.name]
        ends = np.cumsum([len(of.values) for of in whole.values()])
        begins = torch.tensor([0, *ends], device=read.rows.device)
        places = begins[read.labels % len(MODALITIES)] + read.labels // len(MODALITIES)
        if read.weights is not None:  # entries that only fill a fixed capacity belong nowhere
            places = torch.where(read.weights > 0, places, begins[-1])
        return whole, places

    def _summed(self, predictions: Mapping[str, Tensor], view: View) -> LossSum:
        """Loss of the rows that were left out; predictions: by modality of all of them."""
        (whole, places), total = self._places(view), torch.zeros((), device=view.batch.offsets.device)
        rows = [len(of.values) for of in whole.values()]
        left = torch.ones(sum(rows) + 1, device=places.device).index_fill(0, places, 0)[:-1]
        for own, (modality, of) in zip(left.split(rows), whole.items(), strict=True):
            if modality in predictions:
                prediction = predictions[modality].float()
                loss = ROW_LOSSES[self.options.loss](prediction, of.values[:, : prediction.shape[1]].float())
                there = torch.arange(len(loss), device=loss.device) < of.offsets[-1]
                total = total + torch.where(there, loss * own, 0).sum()
        return LossSum(total, view.reads[self.name].targets)

"""What each modality's own encoder makes of its rows, joined for the cross encoder."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data.batch import PackedBatch
from memofast.data.modality import MODALITIES
from memofast.data.view import View
from memofast.model.memobert.embeddings import FeatureEmbeddings, MemoBertEmbeddings
from memofast.model.memobert.encoder import MemoBertLayer
from memofast.model.memobert_flow.configuration import MemoBertFlowConfig
from memofast.model.memobert_flow.sound_networks import sound_network
from memofast.ops.philox import rows_of

# dropout of two layers never draws the same numbers: sites of these begin beyond those of the cross encoder and of one
# another, as an encoder has at most 1,000 layers
_FIRST = {modality: 2000 * (1 + number) for number, modality in enumerate(MODALITIES)}


def own_layers(config: MemoBertFlowConfig, modality: str) -> nn.ModuleList:
    """The layers of the encoder of one modality."""
    first = _FIRST[modality]
    return nn.ModuleList(
        MemoBertLayer(config, first + number, config.unimodal_heads) for number in range(config.layers_of(modality))
    )


class FlowFeatures(FeatureEmbeddings):
    """Faces or speech as `FeatureEmbeddings`, and the encoder that reads them alone."""

    def __init__(self, config: MemoBertFlowConfig, modality: str):
        super().__init__(config, modality)
        self.layers = own_layers(config, modality)

    @staticmethod
    def network_of(config: MemoBertFlowConfig, modality: str) -> nn.Module | None:
        if config.sound and modality == "speech":
            return sound_network(config.sound)
        return FeatureEmbeddings.network_of(config, modality)


class FlowEmbeddings(MemoBertEmbeddings):
    """Rows as `MemoBertEmbeddings` has them, through the encoder of their modality, and with `flow_types` a learned row
    of that added.

    What a view hides or replaces it hides at the input of the encoder, as the rows beside would tell it otherwise;
    where places exchange their rows, so that what each had is still shown somewhere, they exchange what the encoder
    made of them. Source of the latter: HERO's frame order modelling.
    """

    features_class = FlowFeatures

    def __init__(self, config: MemoBertFlowConfig):
        super().__init__(config)
        self.text_layers = own_layers(config, "text")
        self.flow_types = nn.Embedding(len(MODALITIES), config.hidden_size) if config.flow_types else None

    def forward(self, view: View, rng: Tensor | None) -> Tensor:
        """Returns: [N, C] packed rows, sample by sample text, visual, speech, in the compute type."""
        shown, moves = _at_the_input(view)
        hidden = super().forward(shown, rng)
        batch = view.batch
        there = [modality for modality in MODALITIES if batch.rows_of(modality) is not None]
        order = _by_sample(batch, there)
        rows = torch.empty_like(hidden).index_copy(0, order, hidden)
        parts = []
        lengths = [len(batch.rows_of(modality)) for modality in there]
        for modality, part in zip(there, rows.split(lengths), strict=True):
            own = View(replace(batch, offsets=batch.offsets_of(modality)), draw=view.draw)
            for layer in self.layers_of(modality):
                part = layer(part, own, rng)
            if modality in moves:
                part = part[moves[modality]]
            if self.flow_types is not None:
                part = part + self.flow_types.weight[MODALITIES.index(modality)].to(part.dtype)
            parts.append(part)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return torch.empty_like(hidden).index_copy(0, back, torch.cat(parts).to(hidden.dtype))

    def layers_of(self, modality: str) -> nn.ModuleList:
        return self.text_layers if modality == "text" else getattr(self, modality).layers

    def parts_of(self, modality: str) -> list[nn.Module]:
        """The encoder of one modality, with the embeddings of text, and the network of raw rows; what projects rows to
        the model's width is not of it."""
        if modality == "text":
            return [self.word, self.position, self.types, self.norm, self.tables, self.text_layers]
        own = getattr(self, modality)
        return [] if own is None else [part for part in (own.network, own.layers) if part is not None]


def _at_the_input(view: View) -> tuple[View, dict[str, Tensor]]:
    """What the encoders read, and by modality [rows] int64 the row of its encoder that each place has then.

    A place that reads another row takes it from the encoder where its own is read by some place too.
    """
    sources, positions, moves = {}, dict(view.positions), {}
    for modality, given in view.sources.items():
        source = given.to(torch.int64)
        nowhere = torch.full_like(source, len(source))
        own = torch.arange(len(source), device=source.device)
        read = F.pad(torch.zeros_like(source), (0, 1)).index_fill(0, torch.where(source < 0, nowhere, source), 1)
        moved = (source >= 0) & (read[:-1] > 0)
        sources[modality] = torch.where(moved, own, source).to(given.dtype)
        moves[modality] = torch.where(moved, source, own)
        if modality in positions:  # which a view says of places, and the encoder needs of what comes to stand there
            at = positions[modality]
            positions[modality] = F.pad(at, (0, 1)).index_put((torch.where(moved, source, nowhere),), at)[:-1]
    return replace(view, sources=sources, positions=positions), moves


def _by_sample(batch: PackedBatch, there: list[str]) -> Tensor:
    """Where each joint row lies among the rows of these modalities, one after another: [N] int64; rows of no sample
    last."""
    owners = [rows_of(batch.offsets_of(modality), len(batch.rows_of(modality)))[0] for modality in there]
    return torch.cat(owners).argsort(stable=True)

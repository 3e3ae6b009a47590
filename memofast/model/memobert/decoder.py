"""The decoder of a masked auto-encoder: it sees the rows that an encoder saw, and a mark where the others were."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from memofast.data.batch import PackedBatch, StreamRows
from memofast.data.modality import FEATURES, MODALITIES
from memofast.data.view import View
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.encoder import MemoBertEncoder
from memofast.ops.philox import rows_of


class RowDecoder(nn.Module):
    """Projection of the encoder's rows, mark, position and modality of every row, layers, and a linear map to the
    features of each modality. Without dropout.

    Args: width: of the encoder's rows; features: width of a feature row by modality; positions: most rows of a sample
        by modality; sizes: of the layers, as in `MemoBertConfig`.

    Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; sizes MEmoBERT's decoder_conf.
    """

    def __init__(self, width: int, features: Mapping[str, int], positions: Mapping[str, int], sizes: Mapping[str, int]):
        super().__init__()
        config = MemoBertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        inner = config.hidden_size
        self.projection = nn.Linear(width, inner)
        self.mask = nn.Parameter(torch.empty(inner))
        self.types = nn.Embedding(len(MODALITIES), inner)
        self.positions = nn.ModuleDict({name: nn.Embedding(positions[name], inner) for name in MODALITIES})
        self.norm = nn.LayerNorm(inner, eps=config.layer_norm_eps)
        self.encoder = MemoBertEncoder(config)
        self.features = nn.ModuleDict(
            {name: nn.Linear(inner, features[name]) for name in FEATURES if features.get(name)}
        )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask, std=config.initializer_range)

    def forward(
        self, seen: Tensor, places: Tensor, whole: Mapping[str, StreamRows], sample_keys: Tensor
    ) -> dict[str, Tensor]:
        """Predictions of every feature row.

        Args: seen [n, width]: rows that the encoder saw; places [n] int64: where each belongs among the rows of all
            modalities, one modality after another, past their end for none; whole: by modality what there is;
            sample_keys [B] int64.
        Returns: by modality [rows, features].
        """
        rows = self._rows(whole)
        seen = self.projection(seen)
        marked = self.mask.to(seen.dtype).expand(len(rows) + 1, -1)
        inner = marked.index_put((places,), seen)[:-1] + rows.to(seen.dtype)
        order, offsets = _by_sample(whole)
        inner = self.norm(inner[order].float()).to(seen.dtype)
        decoded = self.encoder(inner, View(_sequences(offsets, sample_keys)), None)
        back = torch.empty_like(decoded).index_copy(0, order, decoded)
        parts = dict(zip(whole, back.split([len(of.values) for of in whole.values()]), strict=True))
        return {name: head(parts[name]) for name, head in self.features.items() if name in parts}

    def _rows(self, whole: Mapping[str, StreamRows]) -> Tensor:
        """Position and modality of every row [rows, inner]."""
        found = []
        for modality, of in whole.items():
            # those of no sample lie anywhere; a sample that is too long was refused before
            position = rows_of(of.offsets, len(of.values))[1].clamp(max=self.positions[modality].num_embeddings - 1)
            found.append(self.positions[modality](position) + self.types.weight[MODALITIES.index(modality)])
        return torch.cat(found)


def _by_sample(whole: Mapping[str, StreamRows]) -> tuple[Tensor, Tensor]:
    """The rows of all modalities sample by sample: their order [rows] int64, those of no sample last, and offsets
    [B + 1] int32."""
    owners = [rows_of(of.offsets, len(of.values))[0] for of in whole.values()]
    offsets = torch.stack([of.offsets for of in whole.values()]).sum(0)
    return torch.cat(owners).argsort(stable=True), offsets.to(torch.int32)


def _sequences(offsets: Tensor, sample_keys: Tensor) -> PackedBatch:
    """What layers know of a batch: where its sequences are."""
    nothing = offsets.new_zeros(0)
    return PackedBatch(nothing, nothing, offsets, offsets, offsets, offsets, sample_keys)

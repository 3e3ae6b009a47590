"""A MemoBert-flow that names emotions over padded tensors in plain PyTorch, for `torch.export` and other runtimes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from memofast.data.modality import MODALITIES
from memofast.model.memobert.export import write_program
from memofast.model.memobert.padded import PaddedEmotionModel, padded_layer
from memofast.model.memobert_flow.models import MemoBertFlowForEmotion


class PaddedFlowEmotionModel(PaddedEmotionModel):
    """The weights of a `MemoBertFlowForEmotion` of ready rows; called as `PaddedEmotionModel`."""

    def _read(self, modality: str, rows: Tensor, inside: Tensor) -> Tensor:
        for layer in self.embeddings.layers_of(modality):
            rows = padded_layer(layer, rows, inside[:, None, None])
        types = self.embeddings.flow_types
        return rows if types is None else rows + types.weight[MODALITIES.index(modality)]


def export(model: MemoBertFlowForEmotion, path: Path) -> list[str]:
    """As `memobert.export.write_program`."""
    return write_program(model, path, PaddedFlowEmotionModel)

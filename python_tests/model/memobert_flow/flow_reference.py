"""A MemoBert-flow once more in plain PyTorch, one sample after another and nothing packed or padded; it shares no code
with the packed model but its parameters."""

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.batch import PackedBatch
from memofast.model.memobert_flow import MemoBertFlowConfig, MemoBertFlowModel
from memofast.ops.attention_reference import attention_keep_mask
from memofast.ops.philox import Place, hidden_keep_mask, site

KINDS = ("text", "visual", "speech")
FIRST_SITE = {"text": 2000, "visual": 4000, "speech": 6000}  # of a modality's layers; the cross encoder's begin at 0


def flow_config(**overrides) -> MemoBertFlowConfig:
    """Layers and heads that differ from encoder to encoder; a visual width that needs padding; no dropout unless
    asked."""
    sizes = {
        "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "unimodal_heads": 4,
        "text_layers": 3, "visual_layers": 1, "speech_layers": 2, "intermediate_size": 64,
        "max_position_embeddings": 64, "visual_width": 21, "speech_width": 24, "visual_positions": 48,
        "speech_positions": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return MemoBertFlowConfig(**{**sizes, **overrides})


def flow_model(kind=MemoBertFlowModel, **overrides):
    torch.manual_seed(0)
    model = kind(flow_config(**overrides))
    for name, parameter in model.named_parameters():  # norms and biases too, so that a forgotten one shows
        torch.nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.3)
    return model.eval()


class FlowReference:
    """`hidden()`: packed rows [N, C] of the cross encoder. sources: by modality [rows], -1 or a row's own number, or an
    exchange of rows that hides none."""

    def __init__(self, model: MemoBertFlowModel, batch: PackedBatch, sources: dict | None = None, rng=None):
        self.model, self.batch, self.sources, self.rng = model, batch, sources or {}, rng
        self.config, self.own = model.config, model.embeddings

    def hidden(self) -> Tensor:
        return torch.cat([self._sample(number) for number in range(self.batch.samples)])

    def _sample(self, number: int) -> Tensor:
        key = self.batch.sample_keys[number : number + 1]
        there = [kind for kind in KINDS if self.batch.rows_of(kind) is not None]
        parts = [self._begun(kind, *self._place(kind, number)) for kind in there]
        joint = self._dropped(torch.cat(parts), self.config.hidden_dropout_prob, site(0, Place.EMBEDDING), key)
        done = []
        for kind, part in zip(there, joint.split([len(part) for part in parts]), strict=True):
            layers = self.own.text_layers if kind == "text" else getattr(self.own, kind).layers
            for index, layer in enumerate(layers):
                part = self._layer(layer, part, FIRST_SITE[kind] + index, self.config.unimodal_heads, key)
            if (source := self.sources.get(kind)) is not None:
                begin, end = self._place(kind, number)
                given = source[begin:end].long() - begin
                part = part[torch.where(given < 0, torch.arange(end - begin), given)]
            done.append(part + self.own.flow_types.weight[KINDS.index(kind)])
        joint = torch.cat(done)
        for index, layer in enumerate(self.model.encoder.layers):
            joint = self._layer(layer, joint, index, self.config.num_attention_heads, key)
        return joint

    def _place(self, kind: str, number: int) -> tuple[int, int]:
        return tuple(self.batch.offsets_of(kind)[number : number + 2].tolist())

    def _begun(self, kind: str, begin: int, end: int) -> Tensor:
        own, rows = self.own, self.batch.rows_of(kind)[begin:end]
        kind_row = own.types.weight[KINDS.index(kind)]
        if kind == "text":
            return own.norm(own.word.weight[rows.long()] + own.position.weight[: end - begin] + kind_row)
        part = getattr(own, kind)
        rows = rows[:, : part.width]
        if kind in self.sources:
            rows = torch.where((self.sources[kind][begin:end] < 0)[:, None], part.mask, rows)
        return part.norm(part.projection_norm(part.projection(rows)) + part.position.weight[: end - begin] + kind_row)

    def _layer(self, layer, x: Tensor, index: int, heads: int, key: Tensor) -> Tensor:
        length, width = x.shape
        if not length:
            return x
        q, k, v = layer.qkv(x).view(length, 3, heads, -1).permute(1, 2, 0, 3)
        probability = ((q @ k.mT) * (width // heads) ** -0.5).softmax(-1)
        p = self.config.attention_probs_dropout_prob
        if self.rng is not None and p:
            keep = attention_keep_mask(self.rng, site(index + 1, Place.ATTENTION), key, heads, length, p)[0]
            probability = probability * keep / (1 - p)
        attended = layer.attention_output((probability @ v).transpose(0, 1).reshape(length, width))
        p = self.config.hidden_dropout_prob
        x = layer.attention_norm(x + self._dropped(attended, p, site(index + 1, Place.ATTENTION_OUTPUT), key))
        inner = layer.output(F.gelu(layer.intermediate(x)))
        return layer.output_norm(x + self._dropped(inner, p, site(index + 1, Place.FEED_FORWARD_OUTPUT), key))

    def _dropped(self, x: Tensor, p: float, place: int, key: Tensor) -> Tensor:
        if self.rng is None or not p:
            return x
        offsets = torch.tensor([0, len(x)], dtype=torch.int32)
        return x * hidden_keep_mask(self.rng, place, key, offsets, *x.shape, p) / (1 - p)

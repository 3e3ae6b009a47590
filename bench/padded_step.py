"""The baseline of the step benchmark: the published model in plain PyTorch over padded batches, written the original's
way.

Rules: the original's structure, module names and order of operations (text, faces and speech padded separately,
concatenated, gathered into one padded sequence; separate query, key and value products; additive -10000 mask; unfused
attention, dropout, GELU and LayerNorm; heads on the selected positions only); no Python loop inside the step; the same
weights, targets, optimiser and autocast as ours. Batches arrive collated and masked. With dropout off its losses equal
ours, which the benchmark checks before it measures.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data import View
from memofast.model import MemoBertConfig
from memofast.objectives.face_emotions import soft_labels

EPS = 1e-12


@dataclass
class PaddedBatch:
    """One collated batch.

    input_ids [B, T]; img_feat [B, V, Dv] and speech_feat [B, S, Ds], zero where masked; img_masks, speech_masks [B, V],
    [B, S] bool; gather_index [B, L]; attn_masks [B, L]; selected [B, L] bool, where the loss is taken.
    """

    input_ids: Tensor
    img_feat: Tensor
    speech_feat: Tensor
    img_masks: Tensor
    speech_masks: Tensor
    gather_index: Tensor
    attn_masks: Tensor
    selected: Tensor

    def to(self, device: str) -> "PaddedBatch":
        return PaddedBatch(**{name: value.to(device) for name, value in vars(self).items()})


def collate(view: View, config: MemoBertConfig) -> PaddedBatch:
    """The same samples and masks as the view gives ours, which one objective reads, padded."""
    batch, (read,) = view.batch, view.reads.values()
    ids = batch.token_ids if view.token_ids is None else view.token_ids
    features, masks = {}, {}
    for modality in ("visual", "speech"):
        rows, source, offsets = batch.rows_of(modality), view.sources.get(modality), batch.offsets_of(modality)
        masked = torch.zeros(len(rows), dtype=torch.bool) if source is None else source < 0
        raw = rows[:, : config.feature_width(modality)].float().masked_fill(masked[:, None], 0)
        features[modality], masks[modality] = _pad(raw, offsets), _pad(masked, offsets)
    input_ids = _pad(ids.long(), batch.text_offsets)
    lengths = [getattr(batch, f"{name}_offsets").diff().long() for name in ("text", "visual", "speech")]
    starts = (0, input_ids.shape[1], input_ids.shape[1] + features["visual"].shape[1])
    total = int(batch.offsets.diff().max())
    gather_index = torch.arange(total).repeat(batch.samples, 1)
    for b, (t, v, s) in enumerate(zip(*(length.tolist() for length in lengths), strict=True)):
        gather_index[b, t : t + v] = starts[1] + torch.arange(v)
        gather_index[b, t + v : t + v + s] = starts[2] + torch.arange(s)
    selected = torch.zeros(int(batch.offsets[-1]), dtype=torch.bool)
    selected[read.rows] = True
    real = torch.ones(int(batch.offsets[-1]))
    return PaddedBatch(
        input_ids, features["visual"], features["speech"], masks["visual"], masks["speech"], gather_index,
        _pad(real, batch.offsets), _pad(selected, batch.offsets),
    )  # fmt: skip


def wanted(view: View, config: MemoBertConfig) -> tuple[str, Tensor]:
    """Of a view that one objective reads: its head, and what `PaddedModel.loss` takes as its targets."""
    (read,) = view.reads.values()
    if read.head == "words":
        return read.head, read.labels
    if read.head == "visual_emotions":
        return read.head, soft_labels(view.batch, read)
    modality = {"visual_features": "visual", "speech_features": "speech"}[read.head]
    rows = view.batch.rows_of(modality)
    return read.head, rows[read.labels, : config.feature_width(modality)].float()


def _pad(rows: Tensor, offsets: Tensor) -> Tensor:
    parts = rows[: int(offsets[-1])].split(offsets.diff().tolist())
    return nn.utils.rnn.pad_sequence(list(parts), batch_first=True)


class TextEmbeddings(nn.Module):
    def __init__(self, config: MemoBertConfig):
        super().__init__()
        d = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, d, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, d)
        self.token_type_embeddings = nn.Embedding(2, d)
        self.LayerNorm = nn.LayerNorm(d, eps=EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        position = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        kinds = self.token_type_embeddings(torch.zeros_like(input_ids))
        return self.dropout(
            self.LayerNorm(self.word_embeddings(input_ids) + self.position_embeddings(position) + kinds)
        )


class FeatureEmbeddings(nn.Module):
    """Faces (`img`) or speech; only speech has a type table of its own."""

    def __init__(self, config: MemoBertConfig, name: str, width: int, positions: int):
        super().__init__()
        d = config.hidden_size
        self.name = name
        self.add_module(f"{name}_linear", nn.Linear(width, d))
        self.add_module(f"{name}_layer_norm", nn.LayerNorm(d, eps=EPS))
        self.mask_embedding = nn.Embedding(2, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, d)
        if name == "speech":
            self.token_type_embeddings = nn.Embedding(1, d)
        self.LayerNorm = nn.LayerNorm(d, eps=EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, features: Tensor, masks: Tensor, kind: Tensor) -> Tensor:
        features = features + self.mask_embedding(masks.long())
        hidden = getattr(self, f"{self.name}_layer_norm")(getattr(self, f"{self.name}_linear")(features))
        position = self.position_embeddings(torch.arange(features.shape[1], device=features.device)[None])
        return self.dropout(self.LayerNorm(hidden + position + kind))


class SelfAttention(nn.Module):
    def __init__(self, config: MemoBertConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.sdpa = False

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        if self.sdpa:
            p = self.dropout.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype), dropout_p=p)
            return out.transpose(1, 2).flatten(-2)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask
        return (self.dropout(scores.softmax(-1)) @ v).transpose(1, 2).flatten(-2)


class Output(nn.Module):
    def __init__(self, config: MemoBertConfig, width: int):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


class Layer(nn.Module):
    def __init__(self, config: MemoBertConfig):
        super().__init__()
        d, inner = config.hidden_size, config.intermediate_size
        self.attention = nn.ModuleDict({"self": SelfAttention(config), "output": Output(config, d)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(d, inner)})
        self.output = Output(config, inner)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Encoder(nn.Module):
    def __init__(self, config: MemoBertConfig):
        super().__init__()
        d = config.hidden_size
        self.embeddings = TextEmbeddings(config)
        self.img_embeddings = FeatureEmbeddings(config, "img", config.visual_width, config.visual_positions)
        self.speech_embeddings = FeatureEmbeddings(config, "speech", config.speech_width, config.speech_positions)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(d, d)})

    def forward(self, batch: PaddedBatch) -> Tensor:
        text = self.embeddings(batch.input_ids)
        types = [embeddings.token_type_embeddings.weight for embeddings in (self.embeddings, self.speech_embeddings)]
        visual = self.img_embeddings(batch.img_feat, batch.img_masks, types[0][1])
        speech = self.speech_embeddings(batch.speech_feat, batch.speech_masks, types[1][0])
        hidden = torch.cat((text, visual, speech), dim=1)
        hidden = hidden.gather(1, batch.gather_index[..., None].expand(-1, -1, hidden.shape[-1]))
        mask = (1.0 - batch.attn_masks[:, None, None]) * -10000.0
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, mask)
        return hidden


class Regressor(nn.Module):
    def __init__(self, config: MemoBertConfig, projection: nn.Linear):
        super().__init__()
        d = config.hidden_size
        self.net = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.LayerNorm(d, eps=EPS))
        self.weight = projection.weight
        self.bias = nn.Parameter(torch.zeros(projection.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.net(x), self.weight.t(), self.bias)


class WordHead(nn.Module):
    def __init__(self, config: MemoBertConfig, words: nn.Embedding):
        super().__init__()
        d = config.hidden_size
        self.transform = nn.ModuleDict({"dense": nn.Linear(d, d), "LayerNorm": nn.LayerNorm(d, eps=EPS)})
        self.decoder = nn.Linear(d, config.vocab_size, bias=False)
        self.decoder.weight = words.weight
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform["LayerNorm"](F.gelu(self.transform["dense"](x)))) + self.bias


class PaddedModel(nn.Module):
    """Loads the weights of ours by `conversion.to_original`."""

    def __init__(self, config: MemoBertConfig):
        super().__init__()
        d = config.hidden_size
        self.uniter = Encoder(config)
        self.cls = nn.ModuleDict({"predictions": WordHead(config, self.uniter.embeddings.word_embeddings)})
        self.feat_regress = Regressor(config, self.uniter.img_embeddings.img_linear)
        self.speech_feat_regress = Regressor(config, self.uniter.speech_embeddings.speech_linear)
        transform = (nn.Linear(d, d), nn.GELU(), nn.LayerNorm(d, eps=EPS), nn.Linear(d, config.visual_classes))
        self.region_classifier = nn.ModuleDict({"net": nn.Sequential(*transform)})

    def use_sdpa(self, use: bool) -> None:
        """Whether attention is `scaled_dot_product_attention` instead of written out."""
        for module in self.modules():
            if isinstance(module, SelfAttention):
                module.sdpa = use

    def word_loss_everywhere(self, batch: PaddedBatch, targets: Tensor) -> Tensor:
        """The mean word loss with logits at every position of the joint sequence, as BertForMaskedLM computes them."""
        labels = torch.full(batch.selected.shape, -100, device=targets.device)
        labels[batch.selected] = targets
        logits = self.cls["predictions"](self.uniter(batch))
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def loss(self, head: str, batch: PaddedBatch, targets: Tensor) -> Tensor:
        """Mean loss of one task. targets: token ids [n], feature rows [n, D] or soft labels [n, 8] at the selected
        positions."""
        hidden = self.uniter(batch)
        hidden = hidden[batch.selected[..., None].expand_as(hidden)].view(-1, hidden.shape[-1])
        if head == "words":
            return F.cross_entropy(self.cls["predictions"](hidden), targets, reduction="none").mean()
        if head == "visual_emotions":
            prediction = self.region_classifier["net"](hidden).log_softmax(-1)
            return F.kl_div(prediction, targets, reduction="none").mean()
        regressor = self.feat_regress if head == "visual_features" else self.speech_feat_regress
        return F.mse_loss(regressor(hidden), targets, reduction="none").mean()

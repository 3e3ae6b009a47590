"""Whole models as transformers classes: the encoder, and the encoder with its pre-training heads."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from memofast.data.batch import PackedBatch
from memofast.errors import MemofastError
from memofast.model.memobert import conversion
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.embeddings import FEATURE_MODALITIES, FeatureEmbeddings, MemoBertEmbeddings
from memofast.model.memobert.encoder import MemoBertEncoder, ReadRows
from memofast.model.memobert.heads import PreTrainingHeads, TiedHead

if TYPE_CHECKING:
    from typing import Self


@dataclass
class MemoBertOutput(ModelOutput):
    """hidden [N, C]: packed hidden rows, zero past the last offset. pooled [B, C]: tanh(W h + b) of each sample's [CLS] row."""

    hidden: Tensor | None = None
    pooled: Tensor | None = None


class MemoBertPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation that all MemoBert models share. Nothing is fetched from a hub unless asked."""

    config_class = MemoBertConfig
    base_model_prefix = "memobert"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FeatureEmbeddings):
            init.normal_(module.mask, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, TiedHead):
            init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike | None, *arguments, **options) -> Self:
        """Load a checkpoint folder that `save_pretrained` wrote.

        A hub name needs `local_files_only=False`. Raises `MemofastError` where the folder is missing or holds another architecture.
        """
        if path is not None and options.setdefault("local_files_only", True):
            _require_memobert(Path(path))
        return super().from_pretrained(path, *arguments, **options)

    @classmethod
    def from_bert(cls, path: str | os.PathLike, **overrides) -> Self:
        """Start from a local BERT checkpoint folder; face and speech parts keep their random initialisation.

        Args: path: folder of a transformers BERT checkpoint (any head); overrides: configuration entries, such as `visual_width`.
        Raises `MemofastError` where the folder holds no BERT checkpoint.
        """
        return cls._from_foreign(conversion.read_bert(Path(path)), overrides, str(path))

    @classmethod
    def from_original(cls, path: str | os.PathLike, **overrides) -> Self:
        """Start from a state dict of the original MEmoBERT (`model_step_N.pt`); sizes come from its shapes.

        Raises `MemofastError` where the file is no such state dict.
        """
        return cls._from_foreign(conversion.read_original(Path(path)), overrides, str(path))

    @classmethod
    def _from_foreign(cls, checkpoint: conversion.Checkpoint, overrides: dict, origin: str) -> Self:
        model = cls(MemoBertConfig(**{**checkpoint.sizes, **overrides}))
        conversion.load(model, checkpoint, origin)
        return model.eval()


class MemoBertModel(MemoBertPreTrainedModel):
    """Embeddings, encoder and pooler over a packed batch."""

    _keys_to_ignore_on_load_unexpected = (r"^heads\.", r"^emotion\.")  # heads of the model that a checkpoint is of

    def __init__(self, config: MemoBertConfig):
        super().__init__(config)
        self.embeddings = MemoBertEmbeddings(config)
        self.encoder = MemoBertEncoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word = value

    def forward(
        self,
        batch: PackedBatch,
        *,
        token_ids: Tensor | None = None,
        visual_source: Tensor | None = None,
        speech_source: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> MemoBertOutput:
        """Encode a batch.

        Args:
            token_ids: [sum T] int32, read instead of the batch's own (masked words).
            visual_source, speech_source: [rows] int32, the feature row each row reads, -1 for the mask vector; None: its own.
            rng: [2] int64, run seed and update number; needed in training mode with dropout.
        """
        hidden = self.encode(batch, token_ids, visual_source, speech_source, rng)
        first = batch.offsets[:-1].to(torch.int64).clamp(max=max(batch.rows - 1, 0))
        return MemoBertOutput(hidden=hidden, pooled=torch.tanh(self.pooler(hidden[first])))

    def encode(
        self,
        batch: PackedBatch,
        token_ids: Tensor | None = None,
        visual_source: Tensor | None = None,
        speech_source: Tensor | None = None,
        rng: Tensor | None = None,
        read: ReadRows | None = None,
    ) -> Tensor:
        """`forward` without the pooler. Returns: [N, C]; with `read` [n, C], the rows read."""
        if (
            rng is None
            and self.training
            and (self.config.hidden_dropout_prob or self.config.attention_probs_dropout_prob)
        ):
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        sources = {"visual": visual_source, "speech": speech_source}
        hidden = self.embeddings(batch, batch.token_ids if token_ids is None else token_ids, sources, rng)
        return self.encoder(hidden, batch, rng, read)

    def freeze(self, layers: int | None) -> None:
        """Take the embeddings and the lowest `layers` layers out of training; with None everything, with 0 nothing.

        Raises `MemofastError` for more layers than there are.
        """
        if layers is not None and not 0 <= layers <= len(self.encoder.layers):
            raise MemofastError(f"{layers} layers cannot be frozen, the model has {len(self.encoder.layers)}")
        if layers == 0:
            return
        for module in [self] if layers is None else [self.embeddings, *self.encoder.layers[:layers]]:
            module.requires_grad_(False)


class MemoBertForPreTraining(MemoBertPreTrainedModel):
    """The encoder with the heads of masked modelling; a head runs on its target rows only."""

    def __init__(self, config: MemoBertConfig):
        super().__init__(config)
        self.memobert = MemoBertModel(config)
        self.heads = PreTrainingHeads(config)
        self.post_init()

    def forward(
        self,
        batch: PackedBatch,
        targets: dict[str, tuple[str, Tensor]],
        *,
        token_ids: Tensor | None = None,
        visual_source: Tensor | None = None,
        speech_source: Tensor | None = None,
        rng: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Predictions at target rows.

        Args:
            targets: per objective the name of its head (`words`, `visual_features`, `visual_emotions`, `speech_features`) and the
                target rows [n] int64 of the joint sequence, ascending. The other arguments are those of `MemoBertModel.forward`.
        Returns: per objective [n, outputs of its head]: logits over words or emotions, or features in their true width.

        Every parameter takes part in the graph, so that those a batch does not use get zero gradients (as DDP needs).
        """
        read = ReadRows.of(batch, [rows for _, rows in targets.values()]) if targets else None
        hidden = self.memobert.encode(batch, token_ids, visual_source, speech_source, rng, read)
        used = {head for head, _ in targets.values()}
        idle = self._no_part_of(batch, used, visual_source, speech_source) if torch.is_grad_enabled() else None
        predictions = {}
        parts = hidden.split([rows.shape[0] for _, rows in targets.values()]) if targets else ()
        for (name, (head, _)), selected in zip(targets.items(), parts, strict=True):
            if idle is not None:
                selected, idle = selected + idle.to(selected.dtype), None
            predictions[name] = self._predict(head, selected)
        return predictions

    def _predict(self, head: str, hidden: Tensor) -> Tensor:
        module = getattr(self.heads, head)
        if not isinstance(module, TiedHead):
            return module(hidden)
        embeddings = self.memobert.embeddings
        if head == "words":
            return module(hidden, embeddings.word.weight)
        modality = head.removesuffix("_features")
        return module(hidden, getattr(embeddings, modality).projection.weight.T)

    def _no_part_of(
        self, batch: PackedBatch, used: set[str], visual_source: Tensor | None, speech_source: Tensor | None
    ) -> Tensor:
        """A zero that depends on every parameter this step does not read."""
        parameters = list(self.memobert.pooler.parameters())
        for name, head in self.heads.named_children():
            if name not in used:
                parameters += list(head.parameters())  # a compiler of torch 2.11 adds no generator to a list
        for modality, source in zip(FEATURE_MODALITIES, (visual_source, speech_source), strict=True):
            embeddings = getattr(self.memobert.embeddings, modality)
            if embeddings is not None and getattr(batch, modality) is None:
                parameters += list(embeddings.parameters())
            elif embeddings is not None and source is None:
                parameters.append(embeddings.mask)
        return sum(parameter.flatten()[:0].sum() for parameter in parameters)


def is_bert(path: str | os.PathLike) -> bool:
    """Whether the folder holds a BERT checkpoint of transformers."""
    there = (Path(path) / "config.json").is_file()
    return there and MemoBertConfig.get_config_dict(path)[0].get("model_type") == "bert"


def _require_memobert(folder: Path) -> None:
    if not folder.is_dir():
        raise MemofastError(f"{folder}: no such checkpoint folder; give the folder that holds config.json")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except FileNotFoundError:
        raise MemofastError(f"{folder}: no config.json; give the folder that save_pretrained wrote") from None
    except ValueError:
        raise MemofastError(
            f"{folder / 'config.json'}: not valid JSON; restore it or give another checkpoint"
        ) from None
    if kind != MemoBertConfig.model_type:
        remedy = "; start from it with from_bert" if kind == "bert" else "; give a memofast checkpoint"
        raise MemofastError(f"{folder}: holds a {kind!r} model, not {MemoBertConfig.model_type!r}{remedy}")


AutoConfig.register(MemoBertConfig.model_type, MemoBertConfig)
AutoModel.register(MemoBertConfig, MemoBertModel)
AutoModelForPreTraining.register(MemoBertConfig, MemoBertForPreTraining)

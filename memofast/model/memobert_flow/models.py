"""Whole MemoBert-flow models as transformers classes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining
from transformers import initialization as init

from memofast.errors import MemofastError
from memofast.model.adapters.kept import holds_adapters
from memofast.model.memobert import conversion
from memofast.model.memobert.adapting import open_adapted
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.pre_training import MemoBertForPreTraining, MemoBertModel, MemoBertPreTrainedModel
from memofast.model.memobert.prompt import MemoBertForPrompt
from memofast.model.memobert_flow.configuration import MemoBertFlowConfig
from memofast.model.memobert_flow.embeddings import FlowEmbeddings
from memofast.model.memobert_flow.folder_config import read_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


class MemoBertFlowPreTrainedModel(MemoBertPreTrainedModel):
    """Loading, saving and initialisation that all MemoBert-flow models share."""

    config_class = MemoBertFlowConfig
    _keep_in_fp32_modules_strict = (*MemoBertPreTrainedModel._keep_in_fp32_modules_strict, r"speech\.network\.")

    @classmethod
    def read_config(cls, folder: Path) -> dict[str, Any]:
        return read_config(folder)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight)
            init.zeros_(module.bias)
            return
        super()._init_weights(module)

    @classmethod
    def from_bert(cls, path: str | os.PathLike, **overrides) -> Self:
        """Start from a local BERT folder: the text encoder with `text_layers` evenly spaced ones of its layers, all by
        default, and the cross encoder too where it has as many heads; all else is random.

        Raises `MemofastError` where the folder holds no BERT checkpoint, or one of fewer layers.
        """
        return cls._from_foreign(_of_bert(Path(path), overrides), overrides, str(path))

    @classmethod
    def from_original(cls, path: str | os.PathLike, **overrides) -> Self:
        raise MemofastError(
            f"{path}: is a file, and the original has none of a memobert-flow; give the folder of a BERT or a "
            "memobert-flow"
        )


class MemoBertFlowModel(MemoBertFlowPreTrainedModel, MemoBertModel):
    """Encoders of the modalities, cross encoder and pooler over a packed batch."""

    embeddings_class = FlowEmbeddings

    def freeze(self, encoders: Sequence[str] | None) -> None:
        """Take the encoders of these modalities out of training, see `FlowEmbeddings.parts_of`; with None all."""
        parts = [self] if encoders is None else [part for name in encoders for part in self.embeddings.parts_of(name)]
        for part in parts:
            part.requires_grad_(False)


class MemoBertFlowForPreTraining(MemoBertFlowPreTrainedModel, MemoBertForPreTraining):
    """`MemoBertForPreTraining` over three streams and a cross encoder."""

    encoder_class = MemoBertFlowModel


class MemoBertFlowForEmotion(MemoBertFlowPreTrainedModel, MemoBertForEmotion):
    """`MemoBertForEmotion` over three streams and a cross encoder."""

    encoder_class = MemoBertFlowModel


class MemoBertFlowForPrompt(MemoBertFlowPreTrainedModel, MemoBertForPrompt):
    """`MemoBertForPrompt` over three streams and a cross encoder."""

    encoder_class, pre_training_class = MemoBertFlowModel, MemoBertFlowForPreTraining


class MemoBertFlowStates(MemoBertFlowModel):
    """`MemoBertFlowModel` as a `family.Encoder`."""

    @property
    def width(self) -> int:
        return self.config.hidden_size


def sizes_of_bert(sizes: dict[str, Any]) -> dict[str, Any]:
    """What a BERT of these sizes says of a MemoBert-flow."""
    found = {name: size for name, size in sizes.items() if name not in ("num_hidden_layers", "num_attention_heads")}
    layers, heads = sizes.get("num_hidden_layers", 12), sizes.get("num_attention_heads", 12)
    return found | {"text_layers": layers, "unimodal_heads": heads}


def evenly_spaced(layers: int, of: int) -> list[int]:
    """So many of the layers, the last among them; every second one where they are half as many."""
    return [(number + 1) * of // layers - 1 for number in range(layers)]


def _of_bert(folder: Path, asked: dict[str, Any]) -> conversion.Checkpoint:
    """A BERT's weights under the names of a MemoBert-flow that is asked for."""
    bert = conversion.read_bert(folder)
    config = MemoBertFlowConfig(**{**sizes_of_bert(bert.sizes), **asked})
    layers, heads = bert.sizes.get("num_hidden_layers", 12), bert.sizes.get("num_attention_heads", 12)
    if config.unimodal_heads != heads:
        raise MemofastError(f"{folder} has {heads} attention heads; set model.unimodal_heads={heads}, or leave it out")
    if (most := max(config.text_layers, config.num_hidden_layers)) > layers:
        raise MemofastError(f"{folder} has {layers} layers, not {most}; lower model.text_layers or num_hidden_layers")
    taken = {"embeddings.text_layers": evenly_spaced(config.text_layers, layers)}
    checkpoint = replace(bert, sizes=sizes_of_bert(bert.sizes), notes=list(bert.notes))
    if config.num_attention_heads == heads:
        taken["encoder.layers"] = evenly_spaced(config.num_hidden_layers, layers)
    else:
        checkpoint.anew = [r"encoder\.layers\."]
        checkpoint.notes.append(
            f"its layers have {heads} heads, the cross encoder's {config.num_attention_heads}, so that those begin "
            "with random weights"
        )
    checkpoint.anew += [r"embeddings\.flow_types\."]
    weights = {name: weight for name, weight in bert.weights.items() if not name.startswith("encoder.layers.")}
    for place, numbers in taken.items():
        for own, number in enumerate(numbers):
            old = f"encoder.layers.{number}."
            of_layer = {name: weight for name, weight in bert.weights.items() if name.startswith(old)}
            weights |= {f"{place}.{own}.{name.removeprefix(old)}": weight for name, weight in of_layer.items()}
    checkpoint.weights = weights
    return checkpoint


def open_emotion_model(folder: Path) -> MemoBertFlowForEmotion | MemoBertFlowForPrompt:
    """A trained emotion model, with a head or a prompt, in evaluation mode, from its own folder.

    Raises `MemofastError` where there is no model, or one without either.
    """
    prompted = read_config(folder).get("prompt")
    if holds_adapters(folder):
        return open_adapted(MemoBertFlowForPrompt if prompted else MemoBertFlowForEmotion, folder)
    if prompted:
        return MemoBertFlowForPrompt.from_pretrained(folder).eval()
    model, found = MemoBertFlowForEmotion.from_pretrained(folder, output_loading_info=True)
    if any(name.startswith("emotion.") for name in found["missing_keys"]):
        raise MemofastError(f"{folder} holds a model without an emotion head; train one with memofast finetune")
    return model.eval()


def open_encoder(folder: Path) -> MemoBertFlowStates:
    """The encoder of any MemoBert-flow folder, in evaluation mode. Raises: `MemofastError` where there is none."""
    if holds_adapters(folder):
        opened = open_emotion_model(folder).memobert
        states = MemoBertFlowStates(opened.config)
        states.load_state_dict(opened.state_dict())
        return states.eval()
    return MemoBertFlowStates.from_pretrained(folder, dtype=torch.float32).eval()


AutoConfig.register(MemoBertFlowConfig.model_type, MemoBertFlowConfig)
AutoModel.register(MemoBertFlowConfig, MemoBertFlowModel)
AutoModelForPreTraining.register(MemoBertFlowConfig, MemoBertFlowForPreTraining)

"""Encoders of transformers in local folders: which of them read a modality, and what their folder says of its input."""

from __future__ import annotations

import inspect
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING, MODEL_MAPPING

from memofast.errors import MemofastError
from memofast.model.folder import in_one_line, load_whole, model_type

# what memofast says itself, or nobody reads of an encoder without its head
_LEFT_OUT = (
    "_name_or_path", "architectures", "transformers_version", "id2label", "label2id", "dtype", "torch_dtype",
    "problem_type",
)  # fmt: skip
_MAY_BEGIN_ANEW = r"(.*\.)?(masked_spec_embed$|pooler\.)"  # which nothing here reads
_EXAMPLES = {
    "text": "of text that learnt masked words, as BERT or RoBERTa",
    "visual": "of several pictures, as VideoMAE or TimeSformer",
    "speech": "of sound itself, as data2vec-audio or wav2vec2",
}


def read_encoder(modality: str, folder: Path) -> PretrainedConfig:
    """The configuration of a folder's encoder.

    Raises: `MemofastError` where the folder holds no model, one that transformers does not know by itself, or one that
        does not read this modality.
    """
    where = f"model.{modality}.init"
    try:
        kind = model_type(folder)
    except MemofastError as error:
        raise MemofastError(f"{where}: {error}") from None
    config = in_one_line(
        folder, lambda: AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    )
    found = MODEL_MAPPING.get(type(config), None)
    model = found[0] if isinstance(found, tuple) else found
    if model is None or not _READS[modality](config, model):
        raise MemofastError(f"{where}: {folder} holds a {kind!r} model; give an encoder {_EXAMPLES[modality]}")
    if getattr(config, "hidden_size", None) is None:
        raise MemofastError(f"{where}: {folder} does not say its hidden_size in config.json; give another encoder")
    return config


def _reads_text(config: PretrainedConfig, model: type[PreTrainedModel]) -> bool:
    learnt_words = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    return learnt_words and model.main_input_name == "input_ids" and not config.is_encoder_decoder


def _reads_sound(config: PretrainedConfig, model: type[PreTrainedModel]) -> bool:
    """Of samples, through convolutions, not of spectra."""
    strided = getattr(config, "conv_kernel", None) and getattr(config, "conv_stride", None)
    return model.main_input_name == "input_values" and bool(strided)


def _reads_pictures(config: PretrainedConfig, model: type[PreTrainedModel]) -> bool:
    square = isinstance(getattr(config, "image_size", None), int)
    return model.main_input_name == "pixel_values" and square and isinstance(getattr(config, "num_frames", None), int)


_READS = {"text": _reads_text, "visual": _reads_pictures, "speech": _reads_sound}


def entries_of(config: PretrainedConfig) -> dict[str, Any]:
    """A configuration in plain values, from which `encoder_of` makes the encoder again."""
    told = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in told.items() if name not in _LEFT_OUT} | {"model_type": config.model_type}


def encoder_of(entries: dict[str, Any]) -> PreTrainedModel:
    """An encoder with random weights, by `entries_of`. Raises: `ValueError` for an architecture that there is not."""
    config = AutoConfig.for_model(**entries)
    return AutoModel.from_config(config, trust_remote_code=False, **_without_pooler(config))


def load_encoder(folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """A folder's encoder with its weights, in fp32.

    Raises: `MemofastError` where weights are missing, damaged, or not those of the configuration.
    """
    load = partial(
        AutoModel.from_pretrained, folder, config=config, local_files_only=True, dtype=torch.float32,
        **_without_pooler(config),
    )  # fmt: skip
    return load_whole(load, folder, _MAY_BEGIN_ANEW)[0]


def _without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """That the layer behind the first row, which nothing here reads, is left out, where an architecture lets one."""
    model = MODEL_MAPPING[type(config)]
    takes = inspect.signature(model.__init__).parameters if isinstance(model, type) else ()
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def width_of(config: PretrainedConfig) -> int:
    """Of the rows that an encoder gives."""
    return config.output_hidden_size if getattr(config, "add_adapter", False) else config.hidden_size


def longest_text(encoder: PreTrainedModel) -> int | None:
    """Most rows of a text; None: any number. RoBERTa's kind counts positions from behind its padding's on."""
    most = getattr(encoder.config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    tables = [m for name, m in encoder.named_modules() if name.endswith("position_embeddings")]
    padding = next((m.padding_idx for m in tables if isinstance(m, nn.Embedding)), None)
    return most if padding is None else most - padding - 1


def has_class_row(encoder: PreTrainedModel) -> bool:
    """Whether the first row of an encoder of pictures is of none of them."""
    return any(name.rpartition(".")[2] == "cls_token" for name, _ in encoder.named_parameters())

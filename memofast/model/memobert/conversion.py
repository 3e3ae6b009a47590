"""Foreign checkpoints: transformers BERT and the original MEmoBERT, whose names stand in `original_names`.

BERT and the original name their encoder alike; the original adds faces, speech and heads.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError, MemofastWarning
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.folder_config import read_config
from memofast.model.memobert.original_names import (
    ENCODER,
    MODALITIES,
    SPEECH_TYPE,
    TIED,
    TYPES,
    is_needed,
    mask_table,
    named_alike,
    query_key_value,
)
from memofast.model.weights import first_of, read_weights

_TYPES = {"embeddings.types"}
_OF_ENCODER = re.compile(rf"({'|'.join(ENCODER)})\.")


@dataclass
class Checkpoint:
    """Weights under our names, without the prefix of the encoder in a larger model, and the sizes they imply.

    type_rows [types given, C]: the first rows of our type table (text, visual, speech). left: their names of weights
    that we have no place for. names: theirs of weights under our names, where all that a model does not take is told.
    notes: what was assumed. anew: patterns of our names that begin with random weights.
    """

    sizes: dict
    weights: dict[str, Tensor]
    type_rows: Tensor
    left: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    anew: list[str] = field(default_factory=list)


def read_bert(folder: Path) -> Checkpoint:
    """Read a transformers BERT checkpoint folder. Raises `MemofastError` where it holds none."""
    config = read_config(folder)
    if not config:
        raise MemofastError(f"{folder}: no config.json; give the folder of a transformers BERT checkpoint")
    if config.get("model_type") != "bert":
        raise MemofastError(
            f"{folder}: holds a {config.get('model_type')!r} model, not a BERT; give a BERT checkpoint folder"
        )
    if config.get("hidden_act", "gelu") != "gelu":
        raise MemofastError(
            f"{folder}: activation {config['hidden_act']!r} is not supported; give a BERT with erf 'gelu'"
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise MemofastError(
            f"{folder}: {config['position_embedding_type']} positions are not supported; give a BERT with absolute ones"
        )
    theirs = standard_names(read_weights(folder), "bert.", folder)
    names = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "initializer_range",
        "layer_norm_eps", "pad_token_id",
    )  # fmt: skip
    sizes = {name: config[name] for name in names if config.get(name) is not None}
    return convert(theirs, sizes, folder)


def load(model: nn.Module, checkpoint: Checkpoint, origin: str) -> frozenset[str]:
    """Copy a checkpoint's weights into a model in place; heads and modalities the model lacks are left out.

    Returns: the names of the model's parameters that now are the checkpoint's as a whole. A warning tells what of the
    checkpoint was not taken, and that it has no pooler. Raises `MemofastError` where a size differs,
    or the model's encoder has weights that the checkpoint lacks.
    """
    own, prefix = dict(model.named_parameters()), prefix_of(model)
    check_shapes(model, checkpoint, origin)
    taken = {_name(name, prefix): weight for name, weight in checkpoint.weights.items()}
    with torch.no_grad():
        for name in own.keys() & taken.keys():
            own[name].copy_(taken[name])
        own[f"{prefix}embeddings.types.weight"][: len(checkpoint.type_rows)].copy_(checkpoint.type_rows)
    lacking = {".".join(name.removeprefix(prefix).split(".")[:2]) for name in own.keys() - taken.keys()}
    if checkpoint.names and (anew := {part for part in lacking if part.startswith(("heads.", "embeddings."))} - _TYPES):
        checkpoint.notes.append(f"lacks {', '.join(sorted(anew))}, which begin with random weights")
    left = {name for ours, name in checkpoint.names.items() if _name(ours, prefix) not in own} | set(checkpoint.left)
    for note in checkpoint.notes:
        warnings.warn(f"{origin}: {note}", MemofastWarning, stacklevel=4)
    if left:
        warnings.warn(f"{origin}: the model has no place for {grouped(left)}", MemofastWarning, stacklevel=4)
    if "pooler.weight" not in checkpoint.weights:
        warnings.warn(f"{origin}: has no pooler, which begins with random weights", MemofastWarning, stacklevel=4)
    types = f"{prefix}embeddings.types.weight"
    whole = {types} if len(checkpoint.type_rows) >= len(own[types]) else set()
    return frozenset(own.keys() & taken.keys() | whole)


def is_of_encoder(name: str) -> bool:
    """Whether their name, without a prefix, is of the encoder."""
    return bool(_OF_ENCODER.match(name))


def grouped(names: Iterable[str]) -> str:
    """Every one of their names, for a message; those of a head of many tensors as one."""
    heads: dict[str, list[str]] = {}
    for name in sorted(names):
        heads.setdefault(name if is_of_encoder(name) else name.partition(".")[0], []).append(name)
    return ", ".join(", ".join(own) if len(own) < 3 else f"{head} ({len(own)} tensors)" for head, own in heads.items())


def check_shapes(model: nn.Module, checkpoint: Checkpoint, origin: str) -> None:
    """Raises: as `load`; the model may be one without memory, on the device `meta`."""
    own, prefix = dict(model.named_parameters()), prefix_of(model)
    for name, weight in checkpoint.weights.items():
        target = own.get(_name(name, prefix))
        if target is not None and target.shape != weight.shape:
            raise MemofastError(
                f"{origin}: {name} is {list(weight.shape)}, the model's is {list(target.shape)}; drop the "
                "override of its size, or give a whole checkpoint"
            )
    width = own[f"{prefix}embeddings.types.weight"].shape[1]
    if checkpoint.type_rows.shape[1:] != (width,):
        raise MemofastError(
            f"{origin}: its token types are {list(checkpoint.type_rows.shape)}, not {width} wide; give another"
        )
    new = [re.escape(f"embeddings.{m}.") for m in MODALITIES if not checkpoint.sizes.get(f"{m}_width")]
    begins_anew = re.compile(
        "|".join([r"heads\.|emotion\.|pooler\.|embeddings\.(types|tables)\.", *new, *checkpoint.anew])
    )
    names = {name.removeprefix(prefix) for name in own}
    if lacking := [name for name in names - checkpoint.weights.keys() if not begins_anew.match(name)]:
        raise MemofastError(f"{origin}: lacks {first_of(lacking)}, which the model has; drop the override of its size")


def prefix_of(model: nn.Module) -> str:
    """What the names of the encoder's parameters begin with in a model."""
    return "memobert." if any(name.startswith("memobert.") for name, _ in model.named_parameters()) else ""


def _name(name: str, prefix: str) -> str:
    return name if name.startswith(("heads.", "emotion.")) else prefix + name


def to_original(model: nn.Module) -> dict[str, Tensor]:
    """A MemoBert model's weights under the original's names and shapes; see `original_weights`."""
    return original_weights(model.state_dict(), model.config)


def original_weights(own: Mapping[str, Tensor], config: MemoBertConfig) -> dict[str, Tensor]:
    """Weights of a model under the original's names and shapes, those that are tied twice; what it has no name for is
    left out, see `without_name`."""
    weights = {name.removeprefix("memobert."): weight for name, weight in own.items()}
    types = weights["embeddings.types.weight"]
    last = types[2:] if config.speech_width and not config.visual_width and not config.shared_types else types[1:2]
    found = {TYPES: torch.cat((types[:1], last))}  # without faces the original reads speech rows as of their type
    if config.speech_width and not config.shared_types:
        found[SPEECH_TYPE] = types[2:].clone()
    for ours, name in named_alike(config.num_hidden_layers, config.emotion_head).items():
        if ours in weights:
            found[name] = weights[ours]
    for layer in range(config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts = weights[f"encoder.layers.{layer}.qkv.{kind}"].chunk(3)
            found |= {n: p.clone() for n, p in zip(query_key_value(layer, kind), parts, strict=True)}
    for modality in MODALITIES:
        if (mask := weights.get(f"embeddings.{modality}.mask")) is not None:
            found[mask_table(modality)] = torch.stack((torch.zeros_like(mask), mask))
    found |= {tied: found[name] for tied, name in TIED.items() if name in found and _is_of(tied, found)}
    return {f"uniter.{name}" if is_of_encoder(name) else name: weight for name, weight in found.items()}


def _is_of(tied: str, found: Mapping[str, Tensor]) -> bool:
    """Whether a model has the head of a tied weight."""
    head = tied.rpartition("decoder.")[0] or tied.removesuffix("weight")
    return tied != "cls.predictions.decoder.bias" and f"{head}bias" in found


def without_name(own: Iterable[str], config: MemoBertConfig) -> list[str]:
    """Our names that `original_weights` leaves out."""
    named = set(named_alike(config.num_hidden_layers, config.emotion_head))
    other = re.compile(r"embeddings\.types\.weight|encoder\.layers\.\d+\.qkv\.\w+|embeddings\.\w+\.mask")
    names = (name.removeprefix("memobert.") for name in own)
    return sorted(name for name in names if name not in named and not other.fullmatch(name))


def convert(theirs: Mapping[str, Tensor], sizes: dict, origin: Path, emotion_head: str = "") -> Checkpoint:
    """Weights by their standard names as a checkpoint of these sizes. emotion_head: of a fine-tuned model.

    Raises: `MemofastError` where some are missing, of another shape or of no floating type, or belong to the encoder
        and have no place in ours.
    """
    layers, width = sizes.get("num_hidden_layers", 12), sizes.get("hidden_size", 768)
    pairs = named_alike(layers, emotion_head)
    wanted = [name for ours, name in pairs.items() if is_needed(ours, pairs, theirs, sizes)]
    parts = {(layer, kind): query_key_value(layer, kind) for layer in range(layers) for kind in ("weight", "bias")}
    masks = {modality: mask_table(modality) for modality in MODALITIES if sizes.get(f"{modality}_width")}
    wanted += [*(name for names in parts.values() for name in names), *masks.values(), TYPES]
    own_speech_type = bool(sizes.get("speech_width")) and not sizes.get("shared_types")
    wanted += [SPEECH_TYPE] if own_speech_type else []
    if lacking := [name for name in wanted if name not in theirs]:
        raise MemofastError(f"{origin}: no complete BERT, it lacks {first_of(lacking)}; give another checkpoint")
    weights = {ours: theirs[name] for ours, name in pairs.items() if name in theirs}
    taken = {name for name in pairs.values() if name in theirs} | set(wanted)
    _refuse_other_types(taken, theirs, origin)
    for (layer, kind), names in parts.items():
        for name in names:
            if theirs[name].shape != (width,) * (2 if kind == "weight" else 1):
                raise MemofastError(
                    f"{origin}: {name} is {list(theirs[name].shape)}, not {width} wide; give another checkpoint"
                )
        weights[f"encoder.layers.{layer}.qkv.{kind}"] = torch.cat([theirs[name] for name in names])
    for modality, name in masks.items():
        if theirs[name].shape != (2, sizes[f"{modality}_width"]):
            raise MemofastError(f"{origin}: {name} is {list(theirs[name].shape)}; give another checkpoint")
        weights[f"embeddings.{modality}.mask"] = theirs[name][1]
    types = _type_rows(theirs, own_speech_type, origin)
    left = [name for name in theirs.keys() - taken if not _stands_elsewhere(name, theirs)]
    takes_no_part = SPEECH_TYPE if sizes.get("shared_types") else None
    if inside := [name for name in left if is_of_encoder(name) and name != takes_no_part]:
        raise MemofastError(
            f"{origin}: {first_of(inside)} belongs to an encoder of another kind or size; give a checkpoint with "
            "the sizes of its configuration"
        )
    return Checkpoint(sizes, weights, types, sorted(left))


def _type_rows(theirs: Mapping[str, Tensor], own_speech_type: bool, origin: Path) -> Tensor:
    if theirs[TYPES].dim() != 2:
        raise MemofastError(f"{origin}: {TYPES} is no table; give another checkpoint")
    types = theirs[TYPES][:2]
    if own_speech_type:
        if types.shape[1:] != theirs[SPEECH_TYPE].shape[1:]:
            raise MemofastError(f"{origin}: {SPEECH_TYPE} has another width than {TYPES}; give another checkpoint")
        types = torch.cat((types, theirs[SPEECH_TYPE][:1]))
    return types


def _refuse_other_types(taken: set[str], theirs: Mapping[str, Tensor], origin: Path) -> None:
    for name in sorted(taken):
        if not theirs[name].is_floating_point():
            raise MemofastError(
                f"{origin}: {name} holds {theirs[name].dtype}, no weights in floating point; give a checkpoint that "
                "is not quantised"
            )


def _stands_elsewhere(name: str, theirs: Mapping[str, Tensor]) -> bool:
    """Whether the model has these values by another name, or computes them."""
    if name.endswith("position_ids"):
        return True
    tied = TIED.get(name)
    return tied in theirs and theirs[name].shape == theirs[tied].shape and torch.equal(theirs[name], theirs[tied])


def standard_names(weights: dict[str, Tensor], prefix: str, origin: Path) -> dict[str, Tensor]:
    """Drop the encoder's prefix; old checkpoints say gamma and beta for a norm's weight and bias."""
    ends = {".gamma": ".weight", ".beta": ".bias"}
    named = {}
    for name, weight in weights.items():
        given = name
        name = name.removeprefix(prefix)
        for old, new in ends.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if name in named:
            raise MemofastError(f"{origin}: holds two weights for {given}; give a checkpoint of one model")
        named[name] = weight
    return named

"""Foreign checkpoints: transformers BERT and the original MEmoBERT, by one table of names.

BERT and the original name their encoder alike; the original adds faces, speech and heads. The names on the left are
ours.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.memobert.folder_config import read_config
from memofast.model.weights import first_of, read_torch, read_weights

_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
}
_LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
_WORDS_HEAD = {
    "heads.words.transform.dense": "cls.predictions.transform.dense",
    "heads.words.transform.norm": "cls.predictions.transform.LayerNorm",
}
_ORIGINAL_HEADS = {
    "heads.visual_features.transform.dense": "feat_regress.net.0",
    "heads.visual_features.transform.norm": "feat_regress.net.2",
    "heads.speech_features.transform.dense": "speech_feat_regress.net.0",
    "heads.speech_features.transform.norm": "speech_feat_regress.net.2",
    "heads.visual_emotions.transform.dense": "region_classifier.net.0",
    "heads.visual_emotions.transform.norm": "region_classifier.net.2",
    "heads.visual_emotions.classifier": "region_classifier.net.3",
}
_HEAD_BIASES = {
    "heads.words.bias": "cls.predictions.bias",
    "heads.visual_features.bias": "feat_regress.bias",
    "heads.speech_features.bias": "speech_feat_regress.bias",
}
_ORIGINAL_MODALITIES = {"visual": "img", "speech": "speech"}
_TYPES = "embeddings.token_type_embeddings.weight"
_TIED = {  # what checkpoints hold once more
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "feat_regress.weight": "img_embeddings.img_linear.weight",
    "speech_feat_regress.weight": "speech_embeddings.speech_linear.weight",
}
_OF_ENCODER = re.compile(r"(embeddings|encoder|pooler|img_embeddings|speech_embeddings)\.")
_HEAD_WIDTH = 64  # of every attention head in BERT and in the original; its state dict does not say


@dataclass
class Checkpoint:
    """Weights under our names, without the prefix of the encoder in a larger model, and the sizes they imply."""

    sizes: dict
    weights: dict[str, Tensor]
    type_rows: Tensor  # [types given, C], the first rows of our type table (text, visual, speech)
    left: list[str] = field(default_factory=list)  # their names of weights that we have no place for


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
    theirs = _standard_names(read_weights(folder), "bert.", folder)
    names = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "initializer_range",
        "layer_norm_eps", "pad_token_id",
    )  # fmt: skip
    sizes = {name: config[name] for name in names if config.get(name) is not None}
    return _convert(theirs, sizes, folder)


def read_original(path: Path) -> Checkpoint:
    """Read a state dict of the original MEmoBERT. Raises `MemofastError` where the file is none."""
    if not path.is_file():
        raise MemofastError(f"{path}: no such file; give a model_step_N.pt of the original")
    theirs = _standard_names(read_torch(path), "uniter.", path)
    try:
        vocabulary, width = theirs["embeddings.word_embeddings.weight"].shape
        sizes = {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "num_hidden_layers": len({name.split(".")[2] for name in theirs if name.startswith("encoder.layer.")}),
            "num_attention_heads": max(width // _HEAD_WIDTH, 1),
            "intermediate_size": theirs["encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": theirs["embeddings.position_embeddings.weight"].shape[0],
        }
        for ours, name in _ORIGINAL_MODALITIES.items():
            weight = theirs.get(f"{name}_embeddings.{name}_linear.weight")
            sizes[f"{ours}_width"] = 0 if weight is None else weight.shape[1]
            if weight is not None:
                sizes[f"{ours}_positions"] = theirs[f"{name}_embeddings.position_embeddings.weight"].shape[0]
    except KeyError as error:
        raise MemofastError(f"{path}: no MEmoBERT state dict, {error} is missing; give a model_step_N.pt") from None
    except (ValueError, IndexError):
        raise MemofastError(f"{path}: no MEmoBERT state dict, its tables have other shapes; give another") from None
    if "region_classifier.net.3.bias" in theirs:
        sizes["visual_classes"] = theirs["region_classifier.net.3.bias"].numel()
    return _convert(theirs, sizes, path)


def load(model: nn.Module, checkpoint: Checkpoint, origin: str) -> None:
    """Copy a checkpoint's weights into a model in place; heads and modalities the model lacks are left out.

    A warning tells what of the checkpoint was not taken, and that it has no pooler. Raises `MemofastError` where a
    size differs, or the model's encoder has weights that the checkpoint lacks.
    """
    own, prefix = dict(model.named_parameters()), prefix_of(model)
    check_shapes(model, checkpoint, origin)
    taken = {_name(name, prefix): weight for name, weight in checkpoint.weights.items()}
    with torch.no_grad():
        for name in own.keys() & taken.keys():
            own[name].copy_(taken[name])
        own[f"{prefix}embeddings.types.weight"][: len(checkpoint.type_rows)].copy_(checkpoint.type_rows)
    if checkpoint.left:
        warnings.warn(f"{origin}: the model has no place for {first_of(checkpoint.left, 8)}", stacklevel=4)
    if "pooler.weight" not in checkpoint.weights:
        warnings.warn(f"{origin}: has no pooler, which begins with random weights", stacklevel=4)


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
    new = [re.escape(f"embeddings.{m}.") for m in _ORIGINAL_MODALITIES if not checkpoint.sizes.get(f"{m}_width")]
    begins_anew = re.compile("|".join([r"heads\.|emotion\.|pooler\.|embeddings\.types\.", *new]))
    names = {name.removeprefix(prefix) for name in own}
    if lacking := [name for name in names - checkpoint.weights.keys() if not begins_anew.match(name)]:
        raise MemofastError(f"{origin}: lacks {first_of(lacking)}, which the model has; drop the override of its size")


def prefix_of(model: nn.Module) -> str:
    """What the names of the encoder's parameters begin with in a model."""
    return "memobert." if any(name.startswith("memobert.") for name, _ in model.named_parameters()) else ""


def _name(name: str, prefix: str) -> str:
    return name if name.startswith("heads.") else prefix + name


def to_original(model: nn.Module) -> dict[str, Tensor]:
    """A `MemoBertForPreTraining`'s weights under the original's names and shapes."""
    weights = {name.removeprefix("memobert."): weight for name, weight in model.state_dict().items()}
    types = weights["embeddings.types.weight"]
    theirs = {"uniter.embeddings.token_type_embeddings.weight": types[:2].clone()}
    if model.config.speech_width:
        theirs["uniter.speech_embeddings.token_type_embeddings.weight"] = types[2:].clone()
    for ours, name in _pairs(model.config.num_hidden_layers).items():
        if ours in weights:
            theirs[name if ours.startswith("heads.") else f"uniter.{name}"] = weights[ours]
    for layer in range(model.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts = weights[f"encoder.layers.{layer}.qkv.{kind}"].chunk(3)
            for part, name in zip(parts, ("query", "key", "value"), strict=True):
                theirs[f"uniter.encoder.layer.{layer}.attention.self.{name}.{kind}"] = part.clone()
    for modality, name in _ORIGINAL_MODALITIES.items():
        if (mask := weights.get(f"embeddings.{modality}.mask")) is not None:
            table = torch.stack((torch.zeros_like(mask), mask))
            theirs[f"uniter.{name}_embeddings.mask_embedding.weight"] = table
            regressor = "feat_regress" if modality == "visual" else "speech_feat_regress"
            theirs[f"{regressor}.weight"] = weights[f"embeddings.{modality}.projection.weight"]
    theirs["cls.predictions.decoder.weight"] = weights["embeddings.word.weight"]
    return theirs


def _pairs(layers: int) -> dict[str, str]:
    """Our name to theirs for every tensor that both store alike, theirs without a model prefix."""
    modules = _EMBEDDINGS | _WORDS_HEAD | _ORIGINAL_HEADS
    for layer in range(layers):
        modules |= {f"encoder.layers.{layer}.{ours}": f"encoder.layer.{layer}.{name}" for ours, name in _LAYER.items()}
    for ours, name in _ORIGINAL_MODALITIES.items():
        own, other = f"embeddings.{ours}", f"{name}_embeddings"
        modules |= {
            f"{own}.projection": f"{other}.{name}_linear",
            f"{own}.projection_norm": f"{other}.{name}_layer_norm",
            f"{own}.position": f"{other}.position_embeddings",
            f"{own}.norm": f"{other}.LayerNorm",
        }
    tensors = {f"{ours}.{kind}": f"{name}.{kind}" for ours, name in modules.items() for kind in ("weight", "bias")}
    tables = [ours for ours in modules if ours.endswith((".word", ".position"))]
    return {ours: name for ours, name in tensors.items() if ours.removesuffix(".bias") not in tables} | _HEAD_BIASES


def _convert(theirs: dict[str, Tensor], sizes: dict, origin: Path) -> Checkpoint:
    layers, width = sizes.get("num_hidden_layers", 12), sizes.get("hidden_size", 768)
    pairs = _pairs(layers)
    wanted = [name for ours, name in pairs.items() if _is_needed(ours, pairs, theirs, sizes)]
    parts = {
        (layer, kind): [f"encoder.layer.{layer}.attention.self.{part}.{kind}" for part in ("query", "key", "value")]
        for layer in range(layers)
        for kind in ("weight", "bias")
    }
    masks = {m: f"{name}_embeddings.mask_embedding.weight" for m, name in _ORIGINAL_MODALITIES.items()}
    masks = {modality: name for modality, name in masks.items() if sizes.get(f"{modality}_width")}
    wanted += [*(name for names in parts.values() for name in names), *masks.values(), _TYPES]
    speech_types = "speech_embeddings.token_type_embeddings.weight"
    wanted += [speech_types] if sizes.get("speech_width") else []
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
    if theirs[_TYPES].dim() != 2:
        raise MemofastError(f"{origin}: {_TYPES} is no table; give another checkpoint")
    types = theirs[_TYPES][:2]
    for modality, name in masks.items():
        if theirs[name].shape != (2, sizes[f"{modality}_width"]):
            raise MemofastError(f"{origin}: {name} is {list(theirs[name].shape)}; give another checkpoint")
        weights[f"embeddings.{modality}.mask"] = theirs[name][1]
    if speech_types in taken:
        if types.shape[1:] != theirs[speech_types].shape[1:]:
            raise MemofastError(f"{origin}: {speech_types} has another width than {_TYPES}; give another checkpoint")
        types = torch.cat((types, theirs[speech_types][:1]))
    left = [name for name in theirs.keys() - taken if not _stands_elsewhere(name, theirs)]
    if inside := [name for name in left if _OF_ENCODER.match(name)]:
        raise MemofastError(
            f"{origin}: {first_of(inside)} belongs to an encoder of another kind or size; give a BERT with the sizes "
            "of its config.json"
        )
    return Checkpoint(sizes, weights, types, sorted(left))


def _is_needed(ours: str, pairs: dict[str, str], theirs: dict[str, Tensor], sizes: dict) -> bool:
    """Whether a checkpoint without this weight is not whole; of a head or the pooler none, or all of it is there."""
    for modality in _ORIGINAL_MODALITIES:
        if ours.startswith(f"embeddings.{modality}."):
            return bool(sizes.get(f"{modality}_width"))
    if not ours.startswith(("heads.", "pooler.")):
        return True
    part = ours[: ours.index(".", len("heads.")) + 1] if ours.startswith("heads.") else "pooler."
    return any(other.startswith(part) and name in theirs for other, name in pairs.items())


def _refuse_other_types(taken: set[str], theirs: dict[str, Tensor], origin: Path) -> None:
    for name in sorted(taken):
        if not theirs[name].is_floating_point():
            raise MemofastError(
                f"{origin}: {name} holds {theirs[name].dtype}, no weights in floating point; give a checkpoint that "
                "is not quantised"
            )


def _stands_elsewhere(name: str, theirs: dict[str, Tensor]) -> bool:
    """Whether the model has these values by another name, or computes them."""
    if name.endswith("position_ids"):
        return True
    tied = _TIED.get(name)
    return tied in theirs and theirs[name].shape == theirs[tied].shape and torch.equal(theirs[name], theirs[tied])


def _standard_names(weights: dict[str, Tensor], prefix: str, origin: Path) -> dict[str, Tensor]:
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

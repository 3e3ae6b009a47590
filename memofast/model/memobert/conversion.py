"""Foreign checkpoints: transformers BERT and the original MEmoBERT, by one table of names.

BERT and the original name their encoder alike; the original adds faces, speech and heads. The names on the left are
ours.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.files import read_json, refuse_bomb, refuse_pointer
from memofast.model.folder import refuse_untrusted

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
_HEAD_WIDTH = 64  # of every attention head in BERT and in the original; its state dict does not say


@dataclass
class Checkpoint:
    """Weights under our names, without the prefix of the encoder in a larger model, and the sizes they imply."""

    sizes: dict
    weights: dict[str, Tensor]
    type_rows: Tensor  # [types given, C], the first rows of our type table (text, visual, speech)


def read_bert(folder: Path) -> Checkpoint:
    """Read a transformers BERT checkpoint folder. Raises `MemofastError` where it holds none."""
    config = _read_config(folder)
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
    theirs = _standard_names(_read_weights(folder), "bert.")
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
    theirs = _standard_names(_read_torch(path), "uniter.")
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
    except KeyError as error:
        raise MemofastError(f"{path}: no MEmoBERT state dict, {error} is missing; give a model_step_N.pt") from None
    for ours, name in _ORIGINAL_MODALITIES.items():
        weight = theirs.get(f"{name}_embeddings.{name}_linear.weight")
        sizes[f"{ours}_width"] = 0 if weight is None else weight.shape[1]
        if weight is not None:
            sizes[f"{ours}_positions"] = theirs[f"{name}_embeddings.position_embeddings.weight"].shape[0]
    if "region_classifier.net.3.bias" in theirs:
        sizes["visual_classes"] = theirs["region_classifier.net.3.bias"].numel()
    return _convert(theirs, sizes, path)


def load(model: nn.Module, checkpoint: Checkpoint, origin: str) -> None:
    """Copy a checkpoint's weights into a model in place; heads the model lacks are left out.

    Raises `MemofastError` where a size differs.
    """
    own = dict(model.named_parameters())
    prefix = "memobert." if any(name.startswith("memobert.") for name in own) else ""
    with torch.no_grad():
        for name, weight in checkpoint.weights.items():
            target = own.get(name if name.startswith("heads.") else prefix + name)
            if target is None:
                continue
            if target.shape != weight.shape:
                raise MemofastError(
                    f"{origin}: {name} is {list(weight.shape)}, the model's is {list(target.shape)}; drop the "
                    "override of its size"
                )
            target.copy_(weight)
        table = own[f"{prefix}embeddings.types.weight"]
        table[: len(checkpoint.type_rows)].copy_(checkpoint.type_rows)


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
    return tensors | _HEAD_BIASES


def _convert(theirs: dict[str, Tensor], sizes: dict, origin: Path) -> Checkpoint:
    layers = sizes.get("num_hidden_layers", 12)
    weights = {ours: theirs[name] for ours, name in _pairs(layers).items() if name in theirs}
    try:
        for layer in range(layers):
            prefix = f"encoder.layer.{layer}.attention.self"
            for kind in ("weight", "bias"):
                parts = [theirs[f"{prefix}.{name}.{kind}"] for name in ("query", "key", "value")]
                weights[f"encoder.layers.{layer}.qkv.{kind}"] = torch.cat(parts)
        types = theirs["embeddings.token_type_embeddings.weight"][:2]
        weights["embeddings.word.weight"]
    except KeyError as error:
        raise MemofastError(f"{origin}: no complete BERT, {error} is missing; give another checkpoint") from None
    for modality, name in _ORIGINAL_MODALITIES.items():
        if (table := theirs.get(f"{name}_embeddings.mask_embedding.weight")) is not None:
            weights[f"embeddings.{modality}.mask"] = table[1]
    if (speech := theirs.get("speech_embeddings.token_type_embeddings.weight")) is not None:
        types = torch.cat((types, speech))
    return Checkpoint(sizes, weights, types)


def _standard_names(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Drop the encoder's prefix; old checkpoints say gamma and beta for a norm's weight and bias."""
    ends = {".gamma": ".weight", ".beta": ".bias"}
    named = {}
    for name, weight in weights.items():
        name = name.removeprefix(prefix)
        for old, new in ends.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        named[name] = weight
    return named


def _read_config(folder: Path) -> dict:
    refuse_untrusted(folder)
    try:
        return read_json(folder / "config.json")
    except (FileNotFoundError, NotADirectoryError):
        raise MemofastError(f"{folder}: no config.json; give the folder of a transformers BERT checkpoint") from None
    except ValueError:
        raise MemofastError(
            f"{folder / 'config.json'}: not valid JSON; restore it or give another checkpoint"
        ) from None


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder: safetensors, in one file or in shards, else pytorch_model.bin."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _shards(index)
        return {name: tensor for shard in shards for name, tensor in _read_safetensors(folder / shard).items()}
    if (folder / "model.safetensors").is_file():
        return _read_safetensors(folder / "model.safetensors")
    if (folder / "pytorch_model.bin").is_file():
        return _read_torch(folder / "pytorch_model.bin")
    raise MemofastError(f"{folder}: no model.safetensors or pytorch_model.bin; download the weights into it")


def _shards(index: Path) -> list[str]:
    """Names of the files beside an index that hold its weights."""
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise ValueError("it names files of other folders")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MemofastError(f"{index}: cannot be read ({error}); download it again") from None
    return names


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    refuse_pointer(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MemofastError(f"{path}: cannot be read ({error}); download it again") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    refuse_pointer(path)
    refuse_bomb(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MemofastError(f"{path}: cannot be read ({reason}); download it again") from None

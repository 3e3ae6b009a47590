"""Checkpoints of the original MEmoBERT: what a `model_step_N.pt` holds, told by its tensors and what lies beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memofast.errors import MemofastError
from memofast.model.heads import Head
from memofast.model.memobert.conversion import Checkpoint, convert, standard_names
from memofast.model.memobert.folder_config import MemoBertFile
from memofast.model.memobert.original_config import Beside, check_beside, read_beside
from memofast.model.memobert.original_names import (
    LARE_HEADS,
    LARE_TABLES,
    MATCHING,
    MODALITIES,
    SPEECH_TYPE,
    TYPES,
    named_alike,
)
from memofast.model.weights import read_torch
from memofast.sections import checked

PREFIX = "uniter."
_HEAD_WIDTH = 64  # of every attention head in the original's configurations; no state dict says it
TYPES_OF_TENSORS = (
    torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip
_TIMES = 2  # that a number may be named: a tied weight twice


class Described(NamedTuple):
    """What a file is. sizes: entries of `MemoBertConfig`; heads: further ones of pre-training, as there.

    tables: input tables, as there. emotion: kind of the classifier of a fine-tuned model and its classes, None of a
    pre-trained one. says_words: whether it has the head for words. notes: what was assumed. beside: what lies beside
    the file, None for nothing.
    """

    sizes: dict[str, Any]
    heads: dict[str, dict]
    tables: dict[str, int]
    emotion: tuple[str, int] | None
    says_words: bool
    notes: list[str]
    beside: Beside | None


def describe(path: Path, heads: int | None = None) -> Described:
    """What a file is, without the memory of its weights. heads: number of attention heads, where nothing beside the
    file says it.

    Raises: `MemofastError` where the file is no state dict of the original, or damaged, or what lies beside it is of
        another model.
    """
    return _described(path, standard_names(_read(path, "meta"), PREFIX, path), heads)


def read_original(path: Path, heads: int | None = None) -> tuple[Checkpoint, Described]:
    """The weights of a file, and what it is. Raises: as `describe`, and where a weight is missing or has no place."""
    return checkpoint_of(path, _read(path, "cpu"), heads)


def checkpoint_of(path: Path, given: dict[str, Tensor], heads: int | None = None) -> tuple[Checkpoint, Described]:
    """`read_original` of tensors that were read of the file."""
    theirs = standard_names(given, PREFIX, path)
    described = _described(path, theirs, heads)
    kind = described.emotion[0] if described.emotion else ""
    checkpoint = convert(theirs, described.sizes, path, kind)
    for name, weight in theirs.items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise MemofastError(f"{path}: {name} is not finite; give an earlier checkpoint of the run")
    pairs = named_alike(described.sizes["num_hidden_layers"], kind)
    checkpoint.names = {ours: name for ours, name in pairs.items() if ours in checkpoint.weights}
    checkpoint.notes = described.notes
    return checkpoint, described


def emotion_entries(path: Path, found: Described, classes: Sequence[str] | None = None) -> dict[str, Any]:
    """Entries of `MemoBertConfig` of a fine-tuned model's head. classes: their names; None: those beside the file, else
    their numbers, which are all that it says.

    Raises: `MemofastError` where the file has no such head, or another number of classes.
    """
    if found.emotion is None:
        raise MemofastError(f"{path} holds a model without an emotion head; fine-tune it with memofast finetune")
    kind, count = found.emotion
    given = classes or (found.beside and found.beside.config.classes) or [str(number) for number in range(count)]
    if len(given) != count or len(set(given)) < count:
        raise MemofastError(
            f"{path} names {count} classes, not {', '.join(given)}; give as many names, in the order of its outputs"
        )
    names = dict(enumerate(given))
    return {"emotion_head": kind, "id2label": names, "label2id": {name: number for number, name in names.items()}}


def read_given(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the names that it gives them. Raises: as `describe`."""
    return _read(path, "cpu")


def _read(path: Path, device: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise MemofastError(f"{path}: no such file; give a model_step_N.pt of the original")
    found = read_torch(path, device)
    named, size = sum(tensor.numel() * tensor.element_size() for tensor in found.values()), path.stat().st_size
    if named > _TIMES * size:
        raise MemofastError(
            f"{path}: has {size:,} bytes and names {named:,} of tensors, which no training writes; get it from its "
            "source"
        )
    if foreign := [name for name, tensor in found.items() if tensor.dtype not in TYPES_OF_TENSORS]:
        raise MemofastError(f"{path}: {foreign[0]} holds {found[foreign[0]].dtype}, which no model has; give another")
    return {name: tensor.detach() for name, tensor in found.items()}


def _described(path: Path, theirs: Mapping[str, Tensor], heads: int | None) -> Described:
    try:
        sizes, emotion = _sizes(theirs), _emotion(theirs)
    except KeyError as error:
        raise MemofastError(f"{path}: no MEmoBERT state dict, {error} is missing; give a model_step_N.pt") from None
    except (ValueError, IndexError):
        raise MemofastError(f"{path}: no MEmoBERT state dict, its tables have other shapes; give another") from None
    for name in (TYPES, SPEECH_TYPE):
        if name in theirs and theirs[name].shape != (2 if name == TYPES else 1, sizes["hidden_size"]):
            raise MemofastError(f"{path}: {name} is {list(theirs[name].shape)}, no table of its types; give another")
    beside = read_beside(path)
    if beside is not None:
        check_beside(beside, path, sizes, own_speech_type=SPEECH_TYPE in theirs)
    sizes["num_attention_heads"], notes = _attention_heads(path, sizes["hidden_size"], beside, heads)
    try:
        checked(sizes, str(path), MemoBertFile)
    except MemofastError as error:
        raise MemofastError(f"{error}; give a model_step_N.pt of the original") from None
    further = {}
    if named_alike(0)[f"{MATCHING}.bias"] in theirs:
        further[MATCHING.removeprefix("heads.")] = Head("pooled", outputs=2).described()
    tables = _lare(theirs)
    further |= {name: Head("table", outputs=entries).described() for name, entries in tables.items()}
    return Described(sizes, further, tables, emotion, "cls.predictions.bias" in theirs, notes, beside)


def _sizes(theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Raises: `KeyError`, `ValueError` and `IndexError` where this is no state dict of the original."""
    vocabulary, width = theirs["embeddings.word_embeddings.weight"].shape
    numbers = {name.split(".")[2] for name in theirs if name.startswith("encoder.layer.")}
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": len(numbers),
        "intermediate_size": theirs["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": theirs["embeddings.position_embeddings.weight"].shape[0],
    }
    weights = {m: theirs.get(f"{name}_embeddings.{name}_linear.weight") for m, name in MODALITIES.items()}
    tables = {m: theirs.get(f"{MODALITIES[m]}_embeddings.position_embeddings.weight") for m in MODALITIES}
    for ours, weight in weights.items():
        sizes[f"{ours}_width"] = 0 if weight is None else weight.shape[1]
        if weight is not None and tables[ours] is not None:
            sizes[f"{ours}_positions"] = tables[ours].shape[0]
    there = [modality for modality, weight in weights.items() if weight is not None]
    fixed = bool(there) and all(tables[modality] is None for modality in there)
    sizes["position_encoding"] = "sinusoid" if fixed else "learned"
    blocks = re.compile(r"(img|speech)_embeddings\.projs_linear\.")
    sizes["projection_block"] = any(blocks.match(name) for name in theirs)
    # without faces the original reads speech rows as of their type, whether it keeps an own one or not
    sizes["shared_types"] = "speech" in there and (SPEECH_TYPE not in theirs or "visual" not in there)
    if "region_classifier.net.3.bias" in theirs:
        sizes["visual_classes"] = theirs["region_classifier.net.3.bias"].numel()
    return sizes


def _lare(theirs: Mapping[str, Tensor]) -> dict[str, int]:
    """Entries of the input tables of LARE where all of them are there, each with its head; else none."""
    found = {}
    for name, table in LARE_TABLES.items():
        bias = theirs.get(f"{LARE_HEADS[name]}_predictions.bias")
        if table not in theirs or theirs[table].dim() != 2 or bias is None:
            return {}
        found[name] = theirs[table].shape[0]
    return found


def _emotion(theirs: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """Kind and classes of the classifier that fine-tuning added. Raises: as `_sizes`."""
    width = theirs["embeddings.word_embeddings.weight"].shape[1]
    if "output.output.0.weight" in theirs:
        kinds = {width: "small_vqa", 2 * width: "vqa"}
        if (wide := theirs["output.output.0.weight"].shape[0]) not in kinds:
            raise ValueError
        found = kinds[wide], theirs["output.output.3.weight"].shape[0]
    elif "output.output.1.weight" in theirs:
        found = "emocls_inner", theirs["output.output.4.weight"].shape[0]
    else:
        return None
    if not found[1]:
        raise ValueError
    return found


def _attention_heads(path: Path, width: int, beside: Beside | None, asked: int | None) -> tuple[int, list[str]]:
    """How many, and notes on that."""
    if beside is not None and (known := beside.config.num_attention_heads) is not None:
        if asked is not None and asked != known:
            raise MemofastError(f"{beside.path} says {known} attention heads, not {asked}; leave the number out")
        return known, []
    if asked is not None:
        return asked, []
    if width % _HEAD_WIDTH:
        raise MemofastError(
            f"{path}: nothing says how many attention heads of its width {width} are; put its log/model.json beside "
            "it, or give --heads or model.num_attention_heads"
        )
    count = width // _HEAD_WIDTH
    said = f"{count} attention heads, {_HEAD_WIDTH} wide as in every published size, as no log/model.json is beside it"
    return count, [said]

"""Files of the original MEmoBERT as models' folders, and folders as such files.

What the original has and our models do not stays in the folder, in `original.safetensors`, with the names and types
that the file had, so that the file comes back bit for bit.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memofast.errors import MemofastError
from memofast.files import as_json, parse_json, refuse_pointer, remove, replace_file, temporary_of, write_json, writing
from memofast.model.memobert import original
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.conversion import (
    Checkpoint,
    check_shapes,
    is_of_encoder,
    original_weights,
    standard_names,
    without_name,
)
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.folder_config import read_config
from memofast.model.memobert.original_config import beside, config_beside
from memofast.model.memobert.original_names import MODALITIES, TIED, mask_table
from memofast.model.memobert.pre_training import MemoBertForPreTraining, MemoBertModel, MemoBertPreTrainedModel
from memofast.model.weights import first_of, read_weights, stored_weights
from memofast.sections import checked

KEPT = "original.safetensors"
_NAMES = "names"  # entry of its metadata
_RESERVED = "__metadata__"  # by safetensors
_BY_NAME = {str(dtype).removeprefix("torch."): dtype for dtype in original.TYPES_OF_TENSORS}
_MASK_TABLES = [mask_table(modality) for modality in MODALITIES]
Kind = type[MemoBertPreTrainedModel]
Tensors = dict[str, Tensor]


class _File(BaseModel):
    """Names of a file's tensors in their order, with their types."""

    names: dict[str, Literal[tuple(_BY_NAME)]]


def to_folder(path: Path, out: Path, heads: int | None = None, classes: Sequence[str] | None = None) -> list[str]:
    """Make the folder `out` of a file of the original. Returns: lines that say what it is and what was kept apart.

    Args: heads: number of attention heads, where nothing beside the file says it; classes: names of a fine-tuned
        model's outputs, in order.
    Raises: `MemofastError` where the file is none, or would not come back bit for bit; then there is no folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise MemofastError(f"{out} is there already; choose another folder")
    given = original.read_given(path)
    if _RESERVED in given:
        raise MemofastError(f"{path}: names a tensor {_RESERVED!r}, which no model does; give another")
    checkpoint, found = original.checkpoint_of(path, given, heads)
    kind, config = _model_of(path, checkpoint, found, classes)
    own = _stored(path, kind, config, checkpoint)
    names = {name: _name(tensor) for name, tensor in given.items()}
    kept = _kept(path, given, own, config)
    _check_comes_back(path, given, _rebuilt(own, config, kept, names, path))
    scratch = temporary_of(out)
    remove(scratch)
    with writing(out):
        try:
            scratch.mkdir()
            config.save_pretrained(scratch)
            save_file(own, scratch / "model.safetensors", metadata={"format": "pt"})
            save_file(kept, scratch / KEPT, metadata={"format": "pt", _NAMES: as_json(names)})
            if out.is_dir():
                out.rmdir()
            scratch.rename(out)
        except (SafetensorError, ValueError) as error:  # of names that no file takes
            raise MemofastError(f"{path}: cannot be kept ({str(error).splitlines()[0]}); give another") from None
        finally:
            remove(scratch)
    where = f" ({found.beside.path})" if found.beside else ""
    lines = [f"{out}: {kind.__name__}, {_sizes(config)}{where}", *found.notes]
    if kind is MemoBertForEmotion:
        lines.append(f"head {config.emotion_head}, classes {', '.join(_classes(config))}")
    if kept:
        lines.append(f"kept apart in {KEPT}, as the model has no place for them: {', '.join(sorted(kept))}")
    return lines


def to_file(folder: Path, out: Path) -> list[str]:
    """Make the file `out` of a MemoBert's folder, and beside it the original's configuration. Returns: lines on it.

    Raises: `MemofastError` where the model is not whole, or one that the original has no names for; then there is no
        file.
    """
    for taken in (out, beside(out)):
        if taken.exists():
            raise MemofastError(f"{taken} is there already; choose another name")
    kind, config = _opened(folder)
    own, (kept, names) = read_weights(folder), _read_kept(folder / KEPT)
    left = without_name(own, config)
    if any(name.startswith("emotion.") for name in left):
        raise MemofastError(
            f"{folder}: its head {config.emotion_head!r} is a linear map alone, which the original has no name for; "
            "fine-tune with model.head=vqa or emocls_inner"
        )
    rebuilt, file = _rebuilt(own, config, kept, names, folder / KEPT), io.BytesIO()
    torch.save(rebuilt, file)
    emotion = kind is MemoBertForEmotion
    write_json(beside(out), config_beside(config, _classes(config) if emotion else None))
    replace_file(out, file.getvalue())
    lines = [f"{out}: {len(rebuilt)} tensors, {_sizes(config)}, which {beside(out).name} beside it says too"]
    if wider := [name for name, tensor in rebuilt.items() if names.get(name, _name(tensor)) != _name(tensor)]:
        lines.append(f"in the model's own type, as they are no longer those of the file: {', '.join(wider)}")
    if left:
        told = dict.fromkeys(name.partition(".network.")[0] + ".network" * (".network." in name) for name in left)
        lines.append(f"left out, as the original has no name for them: {', '.join(told)}")
    if getattr(config, "context", None):
        lines.append("left out: the context of utterances and its question, which are no weights")
    if getattr(config, "prompt", None):
        lines.append("left out: the prompt and its words for classes, which are no weights")
    tables = {config.max_position_embeddings, config.visual_positions, config.speech_positions}
    if config.position_encoding == "learned" and len(tables) > 1 and (config.visual_width or config.speech_width):
        lines.append("the original has one number of positions for words, faces and speech, and loads no other ones")
    return lines


def _model_of(
    path: Path, checkpoint: Checkpoint, found: original.Described, classes: Sequence[str] | None
) -> tuple[Kind, MemoBertConfig]:
    """The class and configuration of the model that a file holds."""
    entries: dict[str, Any] = {}
    if found.emotion is not None:
        kind, entries = MemoBertForEmotion, original.emotion_entries(path, found, classes)
    elif classes:
        raise MemofastError(f"{path} is not fine-tuned, so that it has no classes to be named; leave --classes out")
    elif any(name.startswith("heads.") for name in checkpoint.weights):
        kind, entries = MemoBertForPreTraining, {"heads": found.heads, "tables": found.tables}
    else:
        kind = MemoBertModel
    config = MemoBertConfig(**found.sizes, **entries)
    config.architectures, config.dtype = [kind.__name__], torch.float32
    return kind, config


def _stored(path: Path, kind: Kind, config: MemoBertConfig, checkpoint: Checkpoint) -> Tensors:
    """What the folder's model holds, in fp32, by its names."""
    model = _without_memory(kind, config)
    check_shapes(model, checkpoint, str(path))
    prefix = "" if kind is MemoBertModel else "memobert."
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    types = shapes[f"{prefix}embeddings.types.weight"]
    rows = checkpoint.type_rows.new_zeros(types)  # of speech, which a model without it has as well
    rows[: len(checkpoint.type_rows)] = checkpoint.type_rows
    weights = checkpoint.weights | {"embeddings.types.weight": rows}
    named = {n if n.startswith(("heads.", "emotion.")) else prefix + n: weight for n, weight in weights.items()}
    return {n: weight.to(torch.float32, copy=True).contiguous() for n, weight in named.items() if n in shapes}


def _without_memory(kind: Kind, config: MemoBertConfig) -> MemoBertPreTrainedModel:
    with torch.device("meta"):
        return kind(config)


def _kept(path: Path, given: Tensors, own: Tensors, config: MemoBertConfig) -> Tensors:
    """Tensors of a file that do not come back from the model: those it has no place for, tied ones that differ from
    what they are tied to, and mask tables whose first row, which takes no part, is not zero."""
    found, standard = original_weights(own, config), standard_names(given, original.PREFIX, path)
    there = standard_names(found, original.PREFIX, path).keys()
    kept = {}
    for (name, tensor), own_name in zip(given.items(), standard, strict=True):
        source = TIED.get(own_name)
        untied = source in standard and not _equal(tensor, standard[source])
        first_row = own_name in _MASK_TABLES and _bits(tensor[0]).any()
        if not {own_name, source} & there or untied or first_row:
            kept[name] = tensor.clone(memory_format=torch.contiguous_format)
    return kept


def _rebuilt(own: Tensors, config: MemoBertConfig, kept: Tensors, names: Mapping[str, str], where: Path) -> Tensors:
    """The file of a model: the tensors that `names` says in these types, then what else the model has by now."""
    found = standard_names(original_weights(own, config), original.PREFIX, where)
    standard = standard_names(dict.fromkeys(names), original.PREFIX, where)
    tensors: Tensors = {}
    for (name, dtype), own_name in zip(names.items(), standard, strict=True):
        tensor = found.get(own_name, found.get(TIED.get(own_name)))
        if name in kept:
            merges = own_name in _MASK_TABLES and tensor is not None
            tensor = _with_first_row(tensor, kept[name], name, where) if merges else kept[name]
        if tensor is None:
            raise MemofastError(f"{where} names {name}, which neither it nor the model has; convert the file again")
        tensors[name] = _as_it_was(tensor, _BY_NAME[dtype])
    further = [name for name in found if name not in standard and TIED.get(name) not in standard]
    prefixed = {name: f"{original.PREFIX}{name}" if is_of_encoder(name) else name for name in further}
    return _apart(tensors | {prefixed[name]: found[name] for name in further})


def _as_it_was(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """In the type that the file had, where that holds the same numbers; what was trained since keeps its own."""
    narrow = tensor.to(dtype)
    return narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor


def _with_first_row(table: Tensor, kept: Tensor, name: str, where: Path) -> Tensor:
    if table.shape != kept.shape:
        raise MemofastError(f"{where}: {name} is {list(kept.shape)}, the model's {list(table.shape)}; convert it again")
    return torch.cat((kept[:1].to(table.dtype), table[1:]))


def _apart(tensors: Tensors) -> Tensors:
    """Each in memory of its own, so that a file holds no more than they have; those that are one stay one."""
    copies: dict[tuple, Tensor] = {}
    return {
        name: copies.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype), tensor.clone())
        for name, tensor in tensors.items()
    }


def _check_comes_back(path: Path, given: Tensors, rebuilt: Tensors) -> None:
    """Raises: `MemofastError` where a file would not come back from its folder bit for bit."""
    if wrong := [name for name in given.keys() | rebuilt.keys() if not _equal(given.get(name), rebuilt.get(name))]:
        raise MemofastError(
            f"{path}: {first_of(wrong)} would not come back as they are from a model in float32; save the model's "
            "state_dict() in float32"
        )


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.dtype is not other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _opened(folder: Path) -> tuple[Kind, MemoBertConfig]:
    """The class and configuration of a folder's model. Raises: `MemofastError` where it is no whole MemoBert."""
    config = MemoBertConfig(**read_config(folder))
    names = {name.removeprefix("memobert.") for name in stored_weights(folder)}
    heads = {name.partition(".")[0] for name in names} & {"heads", "emotion"}
    kind = MemoBertForEmotion if "emotion" in heads else MemoBertForPreTraining if heads else MemoBertModel
    kind.check_weights(folder, config)
    wanted = {name.removeprefix("memobert.") for name, _ in _without_memory(kind, config).named_parameters()}
    needed = {name for name in wanted if not name.startswith("heads.")}
    if lacking := needed - names:
        raise MemofastError(f"{folder}: its weights lack {first_of(lacking)}; give the folder of a whole model")
    return kind, config


def _read_kept(path: Path) -> tuple[Tensors, dict[str, str]]:
    """What a folder keeps of the file that it was made of, and the names of that; nothing where there is none.

    Raises: `MemofastError` where it is damaged.
    """
    if not path.is_file():
        return {}, {}
    refuse_pointer(path)
    try:
        with safe_open(path, "pt") as file:
            names = parse_json((file.metadata() or {}).get(_NAMES, ""))
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        return kept, checked({"names": names}, str(path), _File).names
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MemofastError(f"{path}: cannot be read ({reason}); convert the file again") from None


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _classes(config: MemoBertConfig) -> tuple[str, ...]:
    return tuple(config.id2label[number] for number in range(config.num_labels))


def _sizes(config: MemoBertConfig) -> str:
    """What a model is, in words."""
    modalities = [
        f"{modality} rows {width} wide" for modality in MODALITIES if (width := config.feature_width(modality))
    ]
    options = {
        "sinusoid positions": config.position_encoding == "sinusoid", "a projection block": config.projection_block,
        "speech has the type of faces": config.shared_types,
    }  # fmt: skip
    said = [
        f"{config.num_hidden_layers} layers of {config.hidden_size}", f"{config.num_attention_heads} attention heads",
        *(modalities or ["text alone"]), *(option for option, chosen in options.items() if chosen),
    ]  # fmt: skip
    return ", ".join(said)

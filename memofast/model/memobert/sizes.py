"""The sizes that a starting checkpoint fixes, and whether they are those that are asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memofast.data.modality import FEATURES
from memofast.errors import MemofastError
from memofast.model.bounds import check_memory
from memofast.model.folder import in_one_line
from memofast.model.memobert import conversion, original
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.folder_config import read_config

# of what begins anew beside a text model
FRESH = ("visual_width", "speech_width", "position_encoding", "projection_block", "shared_types")
_OF_CORPORA = ("visual_width", "speech_width", "visual_classes")
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "visual_width", "speech_width", "visual_positions", "speech_positions",
    "position_encoding", "projection_block", "shared_types", "visual_classes", "face",
)  # fmt: skip


def configuration(entries: Mapping[str, Any], kind: type[MemoBertConfig] = MemoBertConfig) -> MemoBertConfig:
    """The configuration with these entries, of MemoBert or a family made of it.

    Raises: `MemofastError` for sizes that do not go together, a mask token that is no word, and a model that is too
        large for this machine's memory.
    """
    try:
        config = kind(**entries)
    except ValueError as error:
        raise MemofastError(f"model: {error}") from None
    if config.mask_token_id >= config.vocab_size:
        raise MemofastError(
            f"model.mask_token_id {config.mask_token_id} is no word, the vocabulary ends at {config.vocab_size - 1}; "
            "set the number of [MASK] in it"
        )
    check_memory(_parameters(config))
    return config


def _parameters(config: MemoBertConfig) -> int:
    """At least how many parameters there are: tables, projections and layers."""
    there = [name for name in FEATURES if config.feature_width(name)]  # a face network is small beside them
    rows = config.vocab_size + config.max_position_embeddings + sum(config.feature_width(name) for name in there)
    if config.position_encoding == "learned":
        rows += sum(config.feature_positions(name) for name in there)
    if config.projection_block:
        rows += len(there) * config.hidden_size
    layer = 4 * config.hidden_size + 2 * config.intermediate_size
    return config.hidden_size * (rows + config.layers * layer)


def sizes_of(init: str | None, heads: int | None = None) -> dict[str, Any]:
    """Sizes that a starting checkpoint fixes; none without one. heads: attention heads of a file that does not say.

    Raises: `MemofastError` where it is missing or no checkpoint.
    """
    if init is None:
        return {}
    path = Path(init)
    if not path.exists():
        raise MemofastError(f"model.init: no checkpoint at {init}; give a local folder or file")
    if path.is_file():
        found = original.describe(path, heads).sizes
        return {name: size for name, size in found.items() if name not in FRESH} if _lacks_features(found) else found
    found = read_config(path)
    if found.get("model_type") == "bert":
        return conversion.read_bert(path).sizes
    if found.get("model_type") != MemoBertConfig.model_type:
        held = f"holds a {kind!r} model, " if isinstance(kind := found.get("model_type"), str) else "holds "
        raise MemofastError(
            f"model.init: {init} {held}no BERT or memobert checkpoint; give one or leave it out, or set model.family"
        )
    sizes = in_one_line(path, lambda: MemoBertConfig(**found)).to_dict()
    return {name: sizes[name] for name in _SIZES}


def heads_of(init: str | None, heads: int | None = None) -> dict[str, Any]:
    """Heads of pre-training that a checkpoint has beside the published ones, as `MemoBertConfig.heads`; heads: as of
    `sizes_of`."""
    if init is None:
        return {}
    path = Path(init)
    return original.describe(path, heads).heads if path.is_file() else read_config(path).get("heads") or {}


def tables_of(init: str | None, heads: int | None = None) -> dict[str, int]:
    """Input tables that a checkpoint has, as `MemoBertConfig.tables`; heads: as of `sizes_of`."""
    if init is None:
        return {}
    path = Path(init)
    return original.describe(path, heads).tables if path.is_file() else read_config(path).get("tables") or {}


def begins_features_anew(init: str, heads: int | None = None) -> bool:
    """Whether a checkpoint is of text alone, so that any corpus's face and speech rows may join it: a BERT, or one
    under the original's names. heads: as of `sizes_of`."""
    path = Path(init)
    if path.is_file():
        return _lacks_features(original.describe(path, heads).sizes)
    return read_config(path).get("model_type") == "bert"


def _lacks_features(sizes: Mapping[str, Any]) -> bool:
    return not sizes["visual_width"] and not sizes["speech_width"]


def check_sizes(
    init: str, asked: Mapping[str, Any], may_lack: Sequence[str] = (), may_begin: Sequence[str] = ()
) -> None:
    """Raises: `MemofastError` for a checkpoint of other sizes than asked for. may_lack: sizes that may be 0 where the
    checkpoint has more; may_begin: entries that are asked for where the checkpoint may have none."""
    for name, size in sizes_of(init, asked.get("num_attention_heads")).items():
        wanted = asked.get(name, size)
        if name in may_begin:
            continue
        if wanted != size and not (name in may_lack and wanted == 0):
            other, remedy = "recipe", f"set model.{name}={size}"
            if name in _OF_CORPORA:
                other, remedy = "corpora", "give corpora of the same"
            raise MemofastError(
                f"model.init: {init} has {name} {size}, the {other} {wanted}; {remedy} or start from another checkpoint"
            )

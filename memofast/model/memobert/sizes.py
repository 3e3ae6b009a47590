"""The sizes that a starting checkpoint fixes, and whether they are those that are asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memofast.data.modality import FEATURES
from memofast.errors import MemofastError
from memofast.model.bounds import check_memory
from memofast.model.folder import in_one_line
from memofast.model.memobert import conversion
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.folder_config import read_config

_OF_CORPORA = ("visual_width", "speech_width", "visual_classes")
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "visual_width", "speech_width", "visual_positions", "speech_positions", "visual_classes",
)  # fmt: skip


def configuration(entries: Mapping[str, Any]) -> MemoBertConfig:
    """The configuration with these entries.

    Raises: `MemofastError` for sizes that do not go together, a mask token that is no word, and a model that is too
        large for this machine's memory.
    """
    try:
        config = MemoBertConfig(**entries)
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
    rows = config.vocab_size + config.max_position_embeddings
    rows += sum(
        config.feature_positions(name) + config.feature_width(name) for name in FEATURES if config.feature_width(name)
    )
    layer = 4 * config.hidden_size + 2 * config.intermediate_size
    return config.hidden_size * (rows + config.num_hidden_layers * layer)


def sizes_of(init: str | None) -> dict[str, Any]:
    """Sizes that a starting checkpoint fixes; none without one. Raises: `MemofastError` where it is missing or no
    checkpoint."""
    if init is None:
        return {}
    path = Path(init)
    if not path.exists():
        raise MemofastError(f"model.init: no checkpoint at {init}; give a local folder or file")
    if path.is_file():
        return conversion.read_original(path).sizes
    found = read_config(path)
    if found.get("model_type") == "bert":
        return conversion.read_bert(path).sizes
    if found.get("model_type") != MemoBertConfig.model_type:
        raise MemofastError(f"model.init: {init} holds no BERT or memofast checkpoint; give one or leave it out")
    sizes = in_one_line(path, lambda: MemoBertConfig(**found)).to_dict()
    return {name: sizes[name] for name in _SIZES}


def heads_of(init: str | None) -> dict[str, Any]:
    """Heads of pre-training that a memofast checkpoint has beside the published ones, as `MemoBertConfig.heads`."""
    return {} if init is None else read_config(Path(init)).get("heads") or {}


def check_sizes(init: str, asked: Mapping[str, Any], may_lack: Sequence[str] = ()) -> None:
    """Raises: `MemofastError` for a checkpoint of other sizes than asked for. may_lack: sizes that may be 0 where the
    checkpoint has more."""
    for name, size in sizes_of(init).items():
        wanted = asked.get(name, size)
        if wanted != size and not (name in may_lack and wanted == 0):
            other, remedy = "recipe", f"set model.{name}={size}"
            if name in _OF_CORPORA:
                other, remedy = "corpora", "give corpora of the same"
            raise MemofastError(
                f"model.init: {init} has {name} {size}, the {other} {wanted}; {remedy} or start from another checkpoint"
            )

"""What lies beside a checkpoint of the original: `log/model.json`, or another file of its options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.original_names import LARE_TABLES
from memofast.sections import checked

_LARGEST = 2**20  # bytes; such files have a few thousand
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings")


class OriginalConfig(BaseModel):
    """Entries of the original's configuration that are read; None: it does not say."""

    model_config = ConfigDict(strict=True, extra="ignore")

    num_attention_heads: Annotated[int, Field(ge=1, le=2**12)] | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int | None = None
    hidden_act: str | None = None
    use_sinusoid_position_embedding: bool | None = None
    use_projs_av_modality: bool | None = None
    speech_visual_use_same_type: bool | None = None
    classes: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=2**16)] | None = None


class Beside(NamedTuple):
    path: Path
    config: OriginalConfig


def beside(path: Path) -> Path:
    """Where `memofast convert` puts the configuration of a file that it writes."""
    return path.with_suffix(".json")


def read_beside(path: Path) -> Beside | None:
    """What lies beside a checkpoint: its own NAME.json, or `model.json`, else `hps.json`, in its folder, in `log/`
    there or beside that folder, as the original writes it; None where nothing there knows of attention heads.

    Raises: `MemofastError` where such a file is damaged.
    """
    folders = (path.parent, path.parent / "log", path.absolute().parent.parent / "log")
    named = (folder / name for name in ("model.json", "hps.json") for folder in folders)
    for file in (beside(path), *named):
        if file.is_file() and file != path:
            config = _read(file)
            if config.num_attention_heads is not None:
                return Beside(file, config)
    return None


def _read(file: Path) -> OriginalConfig:
    remedy = "restore it, or take it away"
    if file.stat().st_size > _LARGEST:
        raise MemofastError(f"{file}: larger than any configuration; {remedy}")
    try:
        values = read_json(file)
    except (OSError, ValueError):
        raise MemofastError(f"{file}: not valid JSON; {remedy}") from None
    try:
        return checked(values, str(file), OriginalConfig)
    except MemofastError as error:
        raise MemofastError(f"{error}; {remedy}") from None


def check_beside(found: Beside, path: Path, sizes: Mapping[str, Any], own_speech_type: bool) -> None:
    """Raises: `MemofastError` where a configuration is that of another model than a file's tensors show.

    own_speech_type: whether they have a token type of speech alone.
    """
    config = found.config
    if config.hidden_act not in (None, "gelu"):
        raise MemofastError(f"{found.path}: activation {config.hidden_act!r} is not supported, only erf 'gelu'")
    there = {name: sizes[name] for name in _SIZES}
    if sizes["visual_width"] or sizes["speech_width"]:
        there["use_sinusoid_position_embedding"] = sizes["position_encoding"] == "sinusoid"
        there["use_projs_av_modality"] = sizes["projection_block"]
    if sizes["visual_width"] and sizes["speech_width"]:
        there["speech_visual_use_same_type"] = not own_speech_type
    for name, value in there.items():
        if (said := getattr(config, name)) is not None and said != value:
            raise MemofastError(
                f"{found.path} says {name} {said}, the tensors of {path} {value}: it is of another model; take it away "
                "or put the right one there"
            )


def config_beside(config: MemoBertConfig, classes: tuple[str, ...] | None) -> dict[str, Any]:
    """The original's configuration of a model of ours, with the names of its classes."""
    values: dict[str, Any] = {name: getattr(config, name) for name in _SIZES}
    values |= {
        "num_attention_heads": config.num_attention_heads, "hidden_act": "gelu", "type_vocab_size": 2,
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
        "initializer_range": config.initializer_range, "speech_visual_use_same_type": config.shared_types,
        "use_sinusoid_position_embedding": config.position_encoding == "sinusoid",
        "use_projs_av_modality": config.projection_block,
    }  # fmt: skip
    if config.tables.keys() >= LARE_TABLES.keys():
        flags = ("use_emolare", "use_word_senti_embedding", "use_pos_tag_embedding", "use_utt_senti_embedding")
        values |= dict.fromkeys(flags, True)
    return values | ({"classes": list(classes)} if classes else {})

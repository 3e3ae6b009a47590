"""Whether a starting checkpoint, what is asked for and a corpus fit together: sizes, modalities, widths of feature rows, words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memofast.data import Corpus, Split
from memofast.data.batch import Capacity
from memofast.data.conditions import CONDITIONS, condition_of
from memofast.data.loading import epoch
from memofast.errors import MemofastError
from memofast.model import MemoBertConfig
from memofast.model.memobert import conversion
from memofast.model.memobert.embeddings import FEATURE_MODALITIES

_NEEDED = {"l": "text", "v": "visual", "a": "speech"}
_SAMPLES = 4096  # of a batch of words
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "visual_width", "speech_width", "visual_positions", "speech_positions", "visual_classes",
)  # fmt: skip


def shared_modalities(config: MemoBertConfig, corpus: Corpus) -> str:
    """The condition with all modalities that model and corpus both have."""
    return condition_of(tuple(m for m in corpus.modalities if m == "text" or config.feature_width(m)))


def conditions_for(config: MemoBertConfig, corpus: Corpus, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """Conditions asked for, or every one made of what model and corpus both have.

    Raises: `MemofastError` for an unknown condition, or one that needs a modality that either lacks.
    """
    whole = shared_modalities(config, corpus)
    for condition in asked or ():
        if condition not in CONDITIONS:
            raise MemofastError(f"{condition!r} is no condition; there are {', '.join(CONDITIONS)}")
        if lacking := [letter for letter in condition if letter not in whole]:
            raise MemofastError(
                f"condition {condition} needs {_NEEDED[lacking[0]]} rows; corpus {corpus.path} and the model both have {whole}"
            )
    return tuple(asked or (condition for condition in CONDITIONS if set(condition) <= set(whole)))


def check_widths(config: MemoBertConfig, origin: str | Path, corpus: Corpus) -> None:
    """Raises: `MemofastError` for feature rows of another width than the model from `origin` reads."""
    for modality in FEATURE_MODALITIES:
        own, given = config.feature_width(modality), corpus.width(modality)
        if own and given and own != given:
            raise MemofastError(
                f"{origin} reads {modality} rows {own} wide, corpus {corpus.path} has {given}; prepare it with the same extractor"
            )


def check_words(config: MemoBertConfig, split: Split) -> None:
    """Raises: `MemofastError` for word pieces that the model's vocabulary does not have."""
    words = split.words
    for batch in epoch(words, Capacity(_SAMPLES, *(int(rows) for rows in words.lengths.sum(0)))):
        if (largest := int(batch.token_ids.max())) >= config.vocab_size:
            raise MemofastError(
                f"corpus {split.corpus.path} has word piece {largest}, but the model's vocabulary ends at {config.vocab_size - 1}; "
                "prepare it with the model's vocabulary"
            )


def sizes_of(init: str | None) -> dict[str, Any]:
    """Sizes that a starting checkpoint fixes; none without one. Raises: `MemofastError` where it is missing or no checkpoint."""
    if init is None:
        return {}
    path = Path(init)
    if not path.exists():
        raise MemofastError(f"model.init: no checkpoint at {init}; give a local folder or file")
    if path.is_file():
        return conversion.read_original(path).sizes
    try:
        found = MemoBertConfig.get_config_dict(path)[0] if (path / "config.json").is_file() else {}
    except (OSError, ValueError):
        found = {}
    if found.get("model_type") == "bert":
        return conversion.read_bert(path).sizes
    if found.get("model_type") != MemoBertConfig.model_type:
        raise MemofastError(f"model.init: {init} holds no BERT or memofast checkpoint; give one or leave it out")
    sizes = MemoBertConfig(**found).to_dict()
    return {name: sizes[name] for name in _SIZES}


def check_sizes(init: str, asked: Mapping[str, Any], may_lack: Sequence[str] = ()) -> None:
    """Raises: `MemofastError` for a checkpoint of other sizes than asked for. may_lack: sizes that may be 0 where the checkpoint has more."""
    for name, size in sizes_of(init).items():
        wanted = asked.get(name, size)
        if wanted != size and not (name in may_lack and wanted == 0):
            raise MemofastError(
                f"model.init: {init} has {name} {size}, the recipe {wanted}; set model.{name}={size} or start from another checkpoint"
            )

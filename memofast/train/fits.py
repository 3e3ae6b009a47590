"""Whether a model and a corpus fit together: modalities, widths of feature rows, words."""

from collections.abc import Sequence
from pathlib import Path

from memofast.data import Corpus, Split
from memofast.data.batch import Capacity
from memofast.data.conditions import CONDITIONS, condition_of
from memofast.data.loading import epoch
from memofast.errors import MemofastError
from memofast.model import MemoBertConfig
from memofast.model.embeddings import FEATURE_MODALITIES

_NEEDED = {"l": "text", "v": "visual", "a": "speech"}
_SAMPLES = 4096  # of a batch of words


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

"""Whether a model and a corpus fit together: modalities, widths of feature rows, words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memofast.data import Corpus, Split
from memofast.data.batch import Capacity
from memofast.data.conditions import CONDITIONS, condition_of, modalities_of
from memofast.data.dialogue import Context
from memofast.data.loading import epoch
from memofast.data.modality import FEATURES, LETTERS, MODALITIES
from memofast.errors import MemofastError
from memofast.model.family import Reader
from memofast.model.feature_sets import check_feature_sets

_SAMPLES = 4096  # of a batch of words


def shared_modalities(model: Reader, corpus: Corpus) -> str:
    """The condition with all modalities that model and corpus both have. Raises: `MemofastError` where they share
    none."""
    streams = {modality for name, modality in model.streams.items() if name in corpus.streams}
    there = [modality for modality in corpus.modalities if modality != "text" or has_words(corpus)]
    if shared := condition_of(tuple(m for m in corpus.modalities if (m in model.reads and m in there) or m in streams)):
        return shared
    raise MemofastError(
        f"the model reads {', '.join(model.reads)}, corpus {corpus.path} has {', '.join(there) or 'no rows'}; "
        "give a corpus that it can read"
    )


def has_words(corpus: Corpus) -> bool:
    """Whether any text of a corpus is more than [CLS]; that of a corpus of sounds alone is not."""
    return bool((corpus.stores["text"].lengths > 1).any())


def conditions_for(model: Reader, corpus: Corpus, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """Conditions asked for, or every one made of what model and corpus both have.

    Raises: `MemofastError` for an unknown condition, or one that needs a modality that either lacks.
    """
    whole = shared_modalities(model, corpus)
    for condition in asked or ():
        if condition not in CONDITIONS:
            raise MemofastError(f"{condition!r} is no condition; there are {', '.join(CONDITIONS)}")
        if lacking := [letter for letter in condition if letter not in whole]:
            raise MemofastError(
                f"condition {condition} needs {LETTERS[lacking[0]]} rows; "
                f"corpus {corpus.path} and the model both have {whole}; ask for what is made of {whole}"
            )
    return tuple(asked or (condition for condition in CONDITIONS if set(condition) <= set(whole)))


def lines_on_nothing(model: Reader, parts: Sequence[Split]) -> list[str]:
    """A line where samples of a corpus's parts have no row of anything that a model reads."""
    found, of = 0, 0
    for part in parts:
        part = part.reading(model.streams)
        rows = [
            part.lengths[:, MODALITIES.index(name)] - (name == "text") for name in MODALITIES if name in model.reads
        ]
        rows += [part.stream_lengths[name] for name in model.streams]
        found, of = found + int((np.sum(rows, axis=0) <= 0).sum()), of + len(part)
    told = f"{found:,} of {of:,} samples have none of what the model reads; all of them are answered alike"
    return [told] if found else []


def lines_on_untrained(train: Sequence[str], evaluate: Sequence[str]) -> list[str]:
    """A line where conditions show a modality that no condition of the training shows."""
    trained = {letter for condition in train for letter in condition}
    if not (others := [condition for condition in evaluate if not trained.issuperset(condition)]):
        return []
    never = [LETTERS[letter] for letter in LETTERS if letter not in trained and letter in "".join(others)]
    told = f"{', '.join(others)} show {' and '.join(never)}, which is not learnt from (modalities.train)"
    return [f"warning: conditions {told}; set modalities.evaluate"]


def check_widths(model: Reader, origin: str | Path, corpus: Corpus) -> None:
    """Raises: `MemofastError` for feature rows of another width than the model from `origin` reads, or of another
    extractor, as far as its folder names those."""
    for modality in (*FEATURES, *model.streams):
        own, given = model.reads.get(modality), corpus.width(modality)
        if own and given and (modality in model.raw) != (modality in corpus.raw):
            what = ("raw rows", "feature rows")
            reads, has = what if modality in model.raw else what[::-1]
            raise MemofastError(
                f"{origin} reads {reads} of {modality}, corpus {corpus.path} has {has}; prepare it as the corpus that "
                "the model was trained on"
            )
        if own and given and own != given:
            raise MemofastError(
                f"{origin} reads {modality} rows {own} wide, corpus {corpus.path} has {given}; "
                "prepare it with the same extractor"
            )
    check_feature_sets(origin, corpus)


def check_words(model: Reader, split: Split) -> None:
    """Raises: `MemofastError` for word pieces that the model's vocabulary does not have."""
    if (known := model.reads.get("text")) is None:
        return
    words = split.words
    for batch in epoch(words, Capacity(_SAMPLES, *(int(rows) for rows in words.lengths.sum(0)))):
        if (largest := int(batch.token_ids.max())) >= known:
            raise MemofastError(
                f"corpus {split.corpus.path} has word piece {largest}, but the model's vocabulary ends at {known - 1}; "
                "prepare it with the model's vocabulary"
            )


def check_room(context: Context, model: Reader) -> None:
    """Raises: `MemofastError` where context is cut at more rows than the model reads, or of what it does not read."""
    for modality, most in {"text": context.tokens, **context.rows}.items():
        option, limit = "tokens" if modality == "text" else modality, model.longest.get(modality)
        if modality != "text" and modality not in model.reads:
            raise MemofastError(f"context.{option}: the model reads no {modality} rows; leave it out")
        if limit is not None and most > limit:
            raise MemofastError(
                f"context.{option} {most} is more than the {limit} rows of {modality} that the model reads; set "
                f"context.{option}={limit} or less"
            )


def check_longest(model: Reader, split: Split, modalities: Sequence[str]) -> None:
    """Raises: `MemofastError` for samples with more rows of these modalities than the model can read."""
    for modality in modalities:
        rows = split.lengths[:, MODALITIES.index(modality)]
        limit = model.longest.get(modality)
        if limit is not None and len(longer := np.flatnonzero(rows > limit)):
            raise MemofastError(
                f"sample {split.ids[longer[0]]!r} of split {split.name} of corpus {split.corpus.path} has "
                f"{rows[longer[0]]:,} {modality} rows, {len(longer):,} samples have more than the {limit:,} that the "
                "model reads; take them out of the split, or use a model with more positions"
            )


def check_shortest(model: Reader, split: Split, conditions: Sequence[str] | None = None) -> None:
    """Raises: `MemofastError` for samples of which a model that looks at windows sees nothing under one of these
    conditions, or that are shorter than one; conditions None: each such modality must be there."""
    least = getattr(model, "shortest", {})  # most families have no such bound
    for condition in [(name,) for name in least] if conditions is None else map(modalities_of, conditions):
        seen = [name for name in condition if name in least]
        rows = split.lengths[:, [MODALITIES.index(name) for name in seen]]
        shown = np.where(rows > 0, rows, np.iinfo(rows.dtype).max).min(1, initial=np.iinfo(rows.dtype).max)
        nothing, short = ~(rows > 0).any(1), shown < max((least[name] for name in seen), default=0)
        where = f"of split {split.name} of corpus {split.corpus.path}"
        if seen and nothing.any():
            raise MemofastError(
                f"sample {split.ids[nothing.argmax()]!r} {where} has no {' or '.join(seen)} rows, as {nothing.sum():,} "
                "in all; prepare it with --drop-missing, which leaves them out"
            )
        if short.any():
            raise MemofastError(
                f"sample {split.ids[short.argmax()]!r} {where} has {shown[short.argmax()]} of the "
                f"{max(least[name] for name in seen)} rows that the model looks at together, {short.sum():,} samples "
                "are so short; take them out of the corpus"
            )

"""Corpora whose texts are read in their dialogues, as a model or a recipe asks."""

from __future__ import annotations

from pathlib import Path

from memofast.data import Corpus, Split
from memofast.data.conversations import context_of, in_dialogues, utterances_alone
from memofast.data.dialogue import Context
from memofast.errors import MemofastError
from memofast.model.family import Reader
from memofast.prepare.text.vocabulary import vocabulary_of
from memofast.prepare.text.word_pieces import WordPieces


def with_context(corpus: Corpus, context: Context, init: str | Path | None = None) -> Corpus:
    """The corpus with context, see `in_dialogues`, whose marks are of its vocabulary. init: model whose vocabulary it
    is where it carries none.

    Raises: `MemofastError` as `in_dialogues`, and where no vocabulary is known.
    """
    if context_of(corpus) == context:
        return corpus
    if (folder := vocabulary_of([corpus], init)) is None:
        raise MemofastError(
            f"corpus {corpus.path} carries no vocabulary, in which context names the speakers; put the vocab.txt that "
            "it was prepared with into its folder"
        )
    return in_dialogues(corpus, context, WordPieces(folder).wording)


def as_read(model: Reader, split: Split, origin: str | Path | None = None) -> Split:
    """The same samples as a model reads them: with its streams, and its context or none, whatever the corpus is read
    with. origin: its folder, see `with_context`. Raises: `MemofastError` where the corpus lacks either."""
    context = getattr(model, "context", None)  # an encoder without a head has none
    if context_of(split.corpus) != context:
        corpus = utterances_alone(split.corpus)
        corpus = corpus if context is None else with_context(corpus, context, origin)
        split = Split.of_ids(corpus, split.name, split.ids)
    return split.reading(model.streams)

"""Words that name classes: what objectives with prompts know of the corpora's labels and vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from memofast.data.prompt import BERT, MASK_PIECE
from memofast.errors import nearest

_UNKNOWN = "[UNK]"


class Vocabulary(Protocol):
    """What objectives ask of a model's words: how many there are, which stands for a masked one, and how many of them a
    text has at most."""

    vocab_size: int
    mask_token_id: int
    max_position_embeddings: int


class BertSizes:
    """Those of bert-base-uncased."""

    vocab_size, mask_token_id, max_position_embeddings = 30522, BERT[MASK_PIECE], 512


class Language(Protocol):
    """A tokenizer. vocabulary: the id of each piece; called with a sentence it gives `ids`."""

    vocabulary: Mapping[str, int]

    def __call__(self, sentence: str) -> Any: ...


@dataclass(frozen=True)
class Naming:
    """classes: of the corpora's `label`, in order. language: gives the tokenizer of the corpora's words, or None where
    none is known; then a model of BERT's size has BERT's pieces, any other none that have names."""

    classes: Sequence[str]
    language: Callable[[], Language | None]

    def vocabulary(self, size: int) -> Mapping[str, int]:
        """The named word pieces of a model of this size."""
        language = self.language()
        return language.vocabulary if language else BERT if size == BertSizes.vocab_size else {}

    def pieces(self, text: str, size: int) -> tuple[int, ...]:
        """Word pieces of a text, of which [MASK] and others that stand between spaces are taken as they are.

        Raises: `ValueError` for a word that the vocabulary does not have, and without a vocabulary.
        """
        language, known = self.language(), self.vocabulary(size)
        if not known:
            raise ValueError(
                f"{text!r}: no corpus carries its vocabulary; give numbers of word pieces, or prepare with a vocabulary"
            )
        found: list[int] = []
        for word in text.split():
            ids = [known[word]] if word in known else language(word).ids if language else []
            if not ids or known.get(_UNKNOWN) in ids:
                raise ValueError(f"{word!r} is no word of the corpora's vocabulary; choose another one")
            found += ids
        return tuple(found)

    def words(self, given: Mapping[str, str | int | None], size: int) -> dict[int, int]:
        """The word piece of each class, by its index; without those that are left out.

        Raises: `ValueError` for a class that there is not, has no word, or one of several pieces, or another one's.
        """
        if not self.classes:
            raise ValueError("no corpus names the classes of its labels; prepare one with labels, or leave it out")
        for name in given:
            if name not in self.classes:
                raise ValueError(f"words: no class {name!r}{nearest(name, self.classes)}")
        found: dict[int, int] = {}
        for index, name in enumerate(self.classes):
            word = given.get(name, name)
            if word is not None:
                piece = self._piece(name, word, size)
                if piece in found.values():
                    raise ValueError(f"words: another class has the word of {name} too; choose another one")
                found[index] = piece
        if len(found) < 2:
            raise ValueError("words: names fewer than two classes; leave fewer of them out")
        return found

    def _piece(self, name: str, word: str | int, size: int) -> int:
        if isinstance(word, int):
            return word
        pieces = self.pieces(word, size)
        if len(pieces) != 1:
            raise ValueError(f"words: {word!r} of class {name} is {len(pieces)} word pieces; choose a word of one")
        return pieces[0]

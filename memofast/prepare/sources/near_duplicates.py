"""Sentences of two sets that say the same: equal after normalisation where they are short, alike in word pairs where
they are longer.

The rule, deterministic and symmetric:

- Words are compared: Unicode is folded (NFKC, case), Windows-1252 bytes that survived as control characters count as
  what they mean, apostrophes vanish ("don't" is "dont"), everything else that is no letter, digit or underscore only
  separates. A sentence without words is like nothing.
- A sentence of fewer than `SHORT` words is like one with the same words in the same order.
- A longer one is like another when their sets of neighbouring word pairs have a Jaccard similarity of at least `ALIKE`.

Candidates come from an inverted index over each sentence's rarest pairs; the prefix filter loses none (Chaudhuri et
al., "A primitive operator for similarity joins in data cleaning", ICDE 2006), so that the result is that of comparing
all with all.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

SHORT = 5  # words
ALIKE = 0.6

Words = tuple[str, ...]
_WINDOWS = {code: bytes([code]).decode("cp1252", errors="replace") for code in range(0x80, 0xA0)}
_APOSTROPHES = re.compile("['`\u00b4\u02bc\u2018\u2019\u201b\u2032]")
_WORD = re.compile(r"\w+")


class Match(NamedTuple):
    """index: into the other set. similarity: Jaccard, 1 for equal words."""

    index: int
    similarity: float


@dataclass(frozen=True)
class NearDuplicates:
    """first, second: for each index of a set with a near-duplicate in the other one, its most similar match there (the
    first of equals)."""

    first: dict[int, Match]
    second: dict[int, Match]


def words_of(sentence: str) -> Words:
    """Words as they are compared."""
    folded = unicodedata.normalize("NFKC", sentence.translate(_WINDOWS)).casefold()
    return tuple(_WORD.findall(_APOSTROPHES.sub("", folded)))


def similarity(one: Words, other: Words) -> float:
    """1 for the same words, 0 where a short sentence differs, else the Jaccard similarity of neighbouring word
    pairs."""
    if one == other:
        return 1.0
    if min(len(one), len(other)) < SHORT:
        return 0.0
    return _jaccard(_pairs(one), _pairs(other))


def find_near_duplicates(first: Sequence[str], second: Sequence[str], alike: float = ALIKE) -> NearDuplicates:
    """Compare two sets of sentences.

    Args: alike: least similarity of longer sentences, above 0 and at most 1. Time grows with the number of sentences,
        not of their pairs.
    """
    if not 0 < alike <= 1:
        raise ValueError(f"alike must lie above 0 and be at most 1, got {alike}")
    ours, theirs = _places(first), _places(second)
    index = _Index(theirs, alike)
    found = NearDuplicates({}, {})
    for words, places in ours.items():
        for other, value in index.like(words):
            _note(found.first, places, theirs[other][0], value)
            _note(found.second, theirs[other], places[0], value)
    return found


def _note(found: dict[int, Match], places: list[int], other: int, value: float) -> None:
    for place in places:
        known = found.get(place)
        if known is None or (value, -other) > (known.similarity, -known.index):
            found[place] = Match(other, value)


def _places(sentences: Iterable[str]) -> dict[Words, list[int]]:
    """Distinct sentences and where they stand: "What?" is said a thousand times and compared once."""
    places: dict[Words, list[int]] = defaultdict(list)
    for place, sentence in enumerate(sentences):
        if words := words_of(sentence):
            places[words].append(place)
    return dict(places)


class _Index:
    """Distinct sentences by their rarest word pairs."""

    def __init__(self, sentences: Iterable[Words], alike: float):
        self._alike = alike
        self._sentences = dict.fromkeys(sentences)
        self._pairs = {words: _pairs(words) for words in self._sentences if len(words) >= SHORT}
        self._count = Counter(pair for pairs in self._pairs.values() for pair in pairs)
        self._by_pair: dict[tuple[str, str], list[Words]] = defaultdict(list)
        for words, pairs in self._pairs.items():
            for pair in self._rarest(pairs):
                self._by_pair[pair].append(words)

    def _rarest(self, pairs: frozenset) -> list[tuple[str, str]]:
        """The pairs of which two similar sentences share at least one, in an order that is the same for all
        sentences."""
        needed = math.ceil(self._alike * len(pairs) - 1e-9)
        return sorted(pairs, key=lambda pair: (self._count[pair], pair))[: len(pairs) - needed + 1]

    def like(self, words: Words) -> list[tuple[Words, float]]:
        if len(words) < SHORT:
            return [(words, 1.0)] if words in self._sentences else []
        pairs = _pairs(words)
        if sum(pair in self._count for pair in pairs) < self._alike * len(pairs) - 1e-9:
            return []
        candidates = dict.fromkeys(other for pair in self._rarest(pairs) for other in self._by_pair.get(pair, ()))
        compared = ((other, _jaccard(pairs, self._pairs[other])) for other in candidates)
        return [(other, 1.0 if other == words else value) for other, value in compared if value >= self._alike]


def _pairs(words: Words) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(words))


def _jaccard(one: frozenset, other: frozenset) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)

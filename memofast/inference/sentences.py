"""Sentences as a program gives them, checked before anything is read."""

from collections.abc import Iterable, Sequence
from typing import Any

from memofast.errors import MemofastError


def check_sentence(text: Any, name: str) -> None:
    """Raises: `MemofastError` for what is no text, naming it."""
    if not isinstance(text, str):
        raise MemofastError(f"{name} is {_shown(text)}, no sentence; give a str")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise MemofastError(f"{name}, {_shown(text)}, holds halves of letters (surrogates); decode it as UTF-8")


def named_sentences(texts: Any) -> dict[str, str]:
    """Sentences by their names, `text 1` and so on. Raises: `MemofastError` for what is no list of them."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise MemofastError(
            f"predict_many takes a list of sentences, not {_shown(texts)}; give a list, or one sentence to predict"
        )
    named = {f"text {number}": text for number, text in enumerate(texts, 1)}
    for name, text in named.items():
        check_sentence(text, name)
    return named


def named_speakers(speakers: Any, count: int) -> list[str | None]:
    """Names as a table's cells give them, spaces folded, None for one not known. Raises: `MemofastError` for what is no
    list of `count` of them."""
    listed = isinstance(speakers, Sequence) and not isinstance(speakers, (str, bytes))
    if not listed or len(speakers) != count:
        told = f"{len(speakers)}" if listed else _shown(speakers)
        raise MemofastError(f"speakers are one for each of the {count} sentences, not {told}; give a list of names")
    if odd := [one for one in speakers if not (one is None or isinstance(one, str))]:
        raise MemofastError(f"a speaker is {_shown(odd[0])}, no name; give a str, or None for one not known")
    return [" ".join((name or "").split()) or None for name in speakers]


def _shown(value: Any) -> str:
    """A value in a message: its kind, and its beginning where that says more."""
    return f"the {type(value).__name__} {ascii(value)[:60]}"

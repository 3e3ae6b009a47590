"""What reading changed in texts: what was taken out by which rule, and which encodings were found."""

import warnings
from collections import Counter
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from pathlib import Path

from memofast.errors import MemofastWarning

RULES = {
    "tag": "mark-up: tags as <i>, codes as {\\an8}",
    "entity": "character references as &amp; became the character",
    "invisible character": "zero-width spaces, byte-order and direction marks",
    "ruby": "readings beside the characters they belong to",
    "comment": "notes of the subtitles' author, which are not shown",
    "sign": "writing placed in the picture",
    "song": "lines between notes or #",
    "note sign": "a musical note beside words that are kept",
    "description": "what stands in brackets",
    "speaker": "the name of who speaks",
    "other language": "lines in another script than --script",
    "repeated cue": "words that were shown again",
    "cue without times": "subtitles below a line of times that cannot be read",
    "cue without duration": "subtitles that end when or before they begin",
    "index": "the number of a subtitle that does not follow",
}
_SAMPLES = 8  # of each rule
_SHOWN = 120  # characters of a sample


@dataclass
class TextLog:
    """A record of reading. While it is entered, whatever reads or cleans texts in this thread adds to it.

    removed: how often each rule took something out. samples: the first of them, by rule. encodings: by file, those that
    are not plain UTF-8.
    """

    removed: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    encodings: dict[str, dict] = field(default_factory=dict)
    file: str = ""
    _token: Token | None = None

    def __enter__(self) -> "TextLog":
        self._token = _log.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _log.reset(self._token)

    @property
    def doubtful(self) -> list[str]:
        """Files whose encoding is a guess."""
        return [file for file, found in self.encodings.items() if found["doubtful"]]

    def as_json(self) -> dict:
        """The `text` part of a report."""
        removed = {
            rule: {"count": self.removed[rule], "samples": self.samples[rule]} for rule in RULES if self.removed[rule]
        }
        return {"removed": removed, "encodings": self.encodings}


_log: ContextVar[TextLog | None] = ContextVar("text_log", default=None)


def tell_removed(rule: str, text: str, count: int = 1) -> None:
    """Note that a rule took this out of the file that was opened last. Args: rule: a key of RULES."""
    if (log := _log.get()) is None:
        return
    log.removed[rule] += count
    samples = log.samples.setdefault(rule, [])
    if len(samples) < _SAMPLES:
        samples.append({"file": log.file, "text": text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"})


def tell_file(path: Path) -> None:
    """Note which file the removals that follow belong to."""
    if (log := _log.get()) is not None:
        log.file = str(path)


def tell_encoding(path: Path, encoding: str, doubtful: bool, detail: str) -> None:
    """Note an encoding other than UTF-8; a guess that no log takes down is warned of.

    Args: doubtful: whether it is a guess. detail: why, in words.
    """
    if (log := _log.get()) is None:
        if doubtful:
            guess = f"{path} is read as {encoding}, which is a guess ({detail}); look at its text"
            warnings.warn(guess, MemofastWarning, stacklevel=3)
    else:
        log.encodings[str(path)] = {"encoding": encoding, "doubtful": doubtful, "detail": detail}

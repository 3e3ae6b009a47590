"""From subtitle cues to sentences: lines of one script, one speaker each, joined where a sentence goes over two
cues."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from memofast.prepare.subtitles.cue import Cue
from memofast.prepare.subtitles.speakers import in_capitals
from memofast.prepare.subtitles.spoken import turns_of
from memofast.prepare.text.text_log import tell_removed

_LEFT_OPEN = re.compile(r"(?:\.\.\.|\u2026|[,;:\u2013\u2014-]|\w)[\"'\u201d\u2019]?$")
_TAKEN_UP = re.compile(r"^(?:\.\.\.|\u2026)?\s*[\"'\u201c\u2018]?[a-z\u00df-\u00ff]|^(?:\.\.\.|\u2026)")
_ELLIPSES = re.compile(r"(?:\.\.\.|\u2026)\s+(?:\.\.\.|\u2026)\s*")
_SCRIPTS = {"HIRAGANA": "cjk", "KATAKANA": "cjk", "HANGUL": "cjk", "CJK": "cjk"}
_SECOND_SCRIPT = 0.25  # share of a file's lines from which a script is a language of its own and not some foreign words


@dataclass(frozen=True)
class SentenceRules:
    """How cues become sentences.

    shortest: seconds; shorter sentences are set aside. longest: seconds; joining goes no further. gap: seconds between
    cues that may still be one sentence. script: of the lines that are kept where a file has lines of two, by the first
    word of Unicode's names of its letters (latin, cyrillic, greek, ...; cjk for Chinese, Japanese and Korean).
    """

    shortest: float = 1.0
    longest: float = 30.0
    gap: float = 0.5
    script: str = "latin"


def sentences_of(cues: list[Cue], rules: SentenceRules) -> tuple[list[Cue], list[Cue]]:
    """Sentences in time order, and those that are too short or have a problem. A cue's text has its lines apart; a
    sentence is one line.

    What is not said is taken out: descriptions in brackets, songs between notes, names of speakers in capitals. Dashes
    at the beginning of lines mark speakers: a cue of two is split, its time shared out by letters.
    """
    refused = [cue for cue in cues if cue.problem]
    cues = _of_one_script([cue for cue in cues if not cue.problem], rules.script)
    capitals = in_capitals(line for cue in cues for line in cue.text.split("\n"))
    said = [part for cue in cues for part in _by_speaker(cue, capitals) if part.text]
    joined = _joined(said, rules)
    long_enough = [cue for cue in joined if cue.end - cue.start >= rules.shortest]
    return long_enough, [cue for cue in joined if cue.end - cue.start < rules.shortest] + refused


def script_of(text: str) -> str:
    """The script of most of its letters, \"\" where it has none."""
    names = (unicodedata.name(letter, "").split(" ")[0].split("-")[0] for letter in text if letter.isalpha())
    found = Counter(_SCRIPTS.get(name, name.lower()) for name in names)
    return found.most_common(1)[0][0] if found else ""


def _of_one_script(cues: list[Cue], wanted: str) -> list[Cue]:
    lines = Counter(script_of(line) for cue in cues for line in cue.text.split("\n"))
    lines.pop("", None)
    if lines[wanted] < _SECOND_SCRIPT * lines.total() or lines[wanted] > (1 - _SECOND_SCRIPT) * lines.total():
        return cues
    kept = []
    for cue in cues:
        lines = cue.text.split("\n")
        text = "\n".join(line for line in lines if script_of(line) in (wanted, ""))
        if script_of(text):
            kept.append(replace(cue, text=text))
        if left := [line for line in lines if script_of(line) not in (wanted, "")]:
            tell_removed("other language", " ".join(left))
    return kept


def _by_speaker(cue: Cue, capitals: bool) -> Iterator[Cue]:
    """The cue, or one for each of its speakers."""
    texts = turns_of(cue.text, capitals)
    letters = sum(map(len, texts)) or 1
    start = cue.start
    for text in texts:
        end = start + (cue.end - cue.start) * len(text) / letters
        yield Cue(start, end, text)
        start = end


def _joined(cues: list[Cue], rules: SentenceRules) -> list[Cue]:
    sentences: list[Cue] = []
    for cue in cues:
        last = sentences[-1] if sentences else None
        if last and _goes_on(last, cue, rules):
            text = _ELLIPSES.sub(" ", f"{last.text} {cue.text}")
            sentences[-1] = Cue(last.start, max(last.end, cue.end), text)
        else:
            sentences.append(cue)
    return sentences


def _goes_on(last: Cue, cue: Cue, rules: SentenceRules) -> bool:
    """Whether the second cue takes up the sentence that the first leaves open."""
    near = -rules.gap <= cue.start - last.end <= rules.gap and cue.end - last.start <= rules.longest
    return near and bool(_LEFT_OPEN.search(last.text)) and (last.text[-1] == "," or bool(_TAKEN_UP.match(cue.text)))

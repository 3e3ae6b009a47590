"""Words that a film shows more than once and that were said once: repeated cues, and rolling captions."""

from dataclasses import replace
from itertools import pairwise

from memofast.prepare.subtitles.cue import Cue
from memofast.prepare.text.text_log import tell_removed

_NEAR = 0.1  # seconds between captions that roll on
_SAME = 0.03  # seconds between two halves of one cue
_ROLLING = 1 / 3  # share of a file's cues that take up the one before, from which it is rolling captions
_FEWEST = 2  # of them


def without_repeats(cues: list[Cue]) -> list[Cue]:
    """Cues in order of time, each word once.

    The same words at the same time, or going on without a break, are one cue. Where a file's cues again and again begin
    with the lines that the one before ended with (live and automatic captions), only what is new is kept, with the
    times of the cue that brought it.
    """
    cues = _merged(sorted(cues, key=lambda cue: (cue.start, cue.end)))
    rolls = [_taken_up(a, b) > 0 for a, b in pairwise(cues)]
    if sum(rolls) < max(_FEWEST, _ROLLING * len(rolls)):
        return cues
    return _rolled(cues)


def _merged(cues: list[Cue]) -> list[Cue]:
    """Without cues that show what is still shown."""
    kept: list[Cue] = []
    shown: dict[str, int] = {}  # where the last cue of these words stands
    for cue in cues:
        place = shown.get(cue.text)
        if place is not None and cue.problem == kept[place].problem and cue.start - kept[place].end <= _SAME:
            tell_removed("repeated cue", cue.text)
            kept[place] = replace(kept[place], end=max(kept[place].end, cue.end))
            continue
        shown[cue.text] = len(kept)
        kept.append(cue)
    return kept


def _rolled(cues: list[Cue]) -> list[Cue]:
    kept: list[Cue] = []
    last: Cue | None = None
    for cue in cues:
        known = _taken_up(last, cue) if last else 0
        words = cue.text.split()
        if known:
            tell_removed("repeated cue", " ".join(words[:known]))
        if known < len(words):
            kept.append(replace(cue, text=_from_word(cue.text, known)))
        last = cue
    return kept


def _from_word(text: str, first: int) -> str:
    """Its lines without the first so many words."""
    lines = []
    for line in text.split("\n"):
        words = line.split()
        lines.append(" ".join(words[first:]))
        first = max(0, first - len(words))
    return "\n".join(filter(None, lines))


def _taken_up(last: Cue, cue: Cue) -> int:
    """How many words the second cue begins with that are whole lines at the end of the first, or all of it."""
    if last.problem or cue.problem or cue.start - last.end > _NEAR:
        return 0
    before, words = last.text.split(), cue.text.split()
    for begin in _line_starts(last.text):
        count = len(before) - begin
        if before[begin:] == words[:count] and (begin == 0 or count in (*_line_starts(cue.text), len(words))):
            return count
    return 0


def _line_starts(text: str) -> list[int]:
    """The number of words before each line."""
    counts = [len(line.split()) for line in text.split("\n")]
    return [sum(counts[:place]) for place in range(len(counts))]

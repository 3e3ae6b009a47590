"""Advanced SubStation Alpha: which of its events are spoken."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pysubs2

from memofast.prepare.subtitles.cue import Cue
from memofast.prepare.text.markup import plain_lines
from memofast.prepare.text.text_log import tell_removed

_PLACED = re.compile(r"\{[^}]*\\(?:(?:pos|move|org|i?clip)\b|f(?:r[xyz]?|a[xy])-?[\d.])")
_SIGN_STYLE = re.compile(r"(?:^|[^a-z])(?:signs?|titles?|credits?|typeset(?:ting)?|ts)(?:$|[^a-z])", re.I)
_DRAWN = re.compile(r"\{[^}]*\\p[1-9]")
_COMMAS = 9  # in front of the text of an event
_KARAOKE = re.compile(r"\{[^}]*\\[kK][of]?\d")


@dataclass(frozen=True)
class Event:
    """One line of such a file. start, end: seconds. name: of who speaks, often empty."""

    start: float
    end: float
    style: str
    name: str
    text: str


def substation_cues(text: str) -> list[Cue]:
    """Cues of a file's text; comments and drawings are none. A line that is no event, or whose times are none, spoils
    itself alone."""
    events = (_event(number, line) for number, line in enumerate(text.split("\n"), 1) if line.startswith("Dialogue:"))
    return spoken_events(filter(None, events))


def _event(number: int, line: str) -> Event | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # of layers and margins, which are not read
            (event,) = pysubs2.SSAFile.from_string(line, format_="ass")
    except (ValueError, OverflowError):
        event = None
    if event is None or line.count(",") < _COMMAS:
        tell_removed("cue without times", f"line {number}: {line.strip()}")
        return None
    return Event(event.start / 1000, event.end / 1000, event.style, event.name, event.text)


def spoken_events(events: Iterable[Event]) -> list[Cue]:
    """Cues of the events that are spoken: no drawings, no signs.

    Signs are writing placed somewhere in the picture by nobody who has a name, where most of a file is not placed, or
    events in a style called sign, title or the like.
    """
    events = [event for event in events if not _DRAWN.search(event.text)]
    placed = Counter(bool(_PLACED.search(event.text)) for event in events)
    cues = []
    for event in events:
        words = plain_lines(event.text, "substation")
        if not words:
            continue
        loose = placed[True] <= placed[False] and _PLACED.search(event.text) and not event.name.strip()
        if loose or _SIGN_STYLE.search(event.style):
            tell_removed("sign", words)
        elif _KARAOKE.search(event.text):
            tell_removed("song", words)
        elif event.start < 0 or event.end < 0:
            problem = f"bad times: {event.start:g} to {event.end:g} s; {words!r} is left out"
            cues.append(Cue(event.start, event.end, words, problem))
        elif event.end <= event.start:
            tell_removed("cue without duration", words)
        else:
            cues.append(Cue(event.start, event.end, words))
    return cues

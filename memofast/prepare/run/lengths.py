"""What does not fit in length: a clip, its file, its sentence, its picture and its sound."""

import math
import re
from collections.abc import Iterator

from memofast.prepare.media.excerpts import SAMPLE_RATE, Excerpt, Span
from memofast.prepare.run.report import Problem
from memofast.prepare.sources.clips import Clip

_UNEVEN = 1.0  # seconds by which lengths may differ
# seconds that a sentence may last: what stands around it, and four times what its letters take at fifteen a second in
# an alphabet, at five in Chinese characters and the like
_AROUND, _A_LETTER, _A_CHARACTER = 10.0, 4 / 15, 4 / 5
_CHARACTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def seconds_of(excerpt: Excerpt) -> float | None:
    """How long what an excerpt holds is, None where nothing was decoded."""
    if not excerpt.read:
        return None
    sound = 0.0 if excerpt.sound is None else len(excerpt.sound) / SAMPLE_RATE
    return max(sound, excerpt.picture_end or 0.0)


def length_problems(clip: Clip, span: Span, excerpt: Excerpt, longest: float) -> Iterator[Problem]:
    """A sentence longer than its film, a film longer than its sentence or than the limit, picture and sound that end at
    different times.

    Args: span: the piece of the clip that was used; longest: seconds of a clip that are used.
    """
    yield from _beyond_the_end(clip, span, excerpt)
    if excerpt.picture_end is not None and len(excerpt.times) > 1 and excerpt.sound is not None:
        picture, sound = excerpt.picture_end, len(excerpt.sound) / SAMPLE_RATE
        if abs(picture - sound) > _UNEVEN:
            yield Problem("uneven", f"{picture:.1f} s of picture, {sound:.1f} s of sound")
    if clip.end is None:
        if excerpt.goes_on or excerpt.skipped:
            whole = f" of {excerpt.file_seconds:.1f} s" if excerpt.file_seconds is not None else ""
            end = span.start + (seconds_of(excerpt) or 0.0)
            silence = ", before which nobody speaks" if excerpt.skipped else ""
            used = f"{span.start:.1f} to {end:.1f} s{whole} are used{silence}"
            yield Problem("cut", f"longer than {longest:g} s; {used}")
        yield from _outlasts_its_words(clip, excerpt)
    elif clip.end - (clip.start or 0.0) > longest:
        yield Problem("cut", f"longer than {longest:g} s")


def _beyond_the_end(clip: Clip, span: Span, excerpt: Excerpt) -> Iterator[Problem]:
    wanted = span.end - span.start
    if not (excerpt.complete and math.isfinite(wanted) and clip.end) or excerpt.goes_on:
        return
    there = seconds_of(excerpt)
    if there is None and excerpt.file_seconds is not None:  # nothing was decoded, but the file says how long it is
        there = min(wanted, max(0.0, excerpt.file_seconds - span.start))
    if there is not None and there < wanted - _UNEVEN:
        yield Problem("beyond the end", f"{there:.1f} s of {wanted:.1f} s are there")


def _outlasts_its_words(clip: Clip, excerpt: Excerpt) -> Iterator[Problem]:
    """A whole file that is far longer than its one sentence would take, as some of MELD's."""
    there = excerpt.file_seconds if excerpt.file_seconds is not None else seconds_of(excerpt)
    if not clip.text or there is None:
        return
    characters = len(_CHARACTERS.findall(clip.text))
    letters = sum(letter.isalnum() for letter in clip.text) - characters
    if there > _AROUND + _A_LETTER * letters + _A_CHARACTER * characters:
        yield Problem("longer than its words", f"{there:.1f} s for {clip.text!r}")

"""What a timeline shows of a film: one prediction per utterance, and of long films means over stretches of time, where
single utterances would be narrower than what can be drawn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from memofast.inference.prediction import Prediction

_MOST = 120  # bars; of narrower ones a screen shows whichever fall on its pixels


def one_each(rows: Iterable[Prediction]) -> list[Prediction]:
    """The first prediction of each utterance of a file: of who speaks, and without one of the person seen most."""
    found: dict[str, Prediction] = {}
    for row in rows:
        found.setdefault(row.id, row)
    return list(found.values())


def drawable(timed: Sequence[Prediction], seconds: float) -> tuple[list[Prediction], float]:
    """What is drawn of a film that lasts `seconds`, and the length of a stretch; 0.0 where the utterances are shown
    themselves.

    A stretch has the id and text of its first utterance; utterances belong to where their middle lies, stretches
    without any are left out.
    """
    if len(timed) <= _MOST:
        return list(timed), 0.0
    stretch, groups = seconds / _MOST, {}
    for found in timed:
        groups.setdefault(int((found.start + found.end) / 2 / stretch), []).append(found)
    return [_mean(group, place * stretch, (place + 1) * stretch) for place, group in groups.items()], stretch


def _mean(group: Sequence[Prediction], start: float, end: float) -> Prediction:
    probabilities = _mean_by_name(p.probabilities for p in group)
    return replace(
        group[0], start=start, end=end, probabilities=probabilities,
        importance=_mean_by_name(p.importance for p in group),
        named=max(probabilities, key=probabilities.get, default=None),
        value=None if group[0].value is None else fmean(p.value for p in group),
    )  # fmt: skip


def _mean_by_name(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of each name the mean over those that have it."""
    values: dict[str, list[float]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: fmean(those) for name, those in values.items()}

"""What is counted for the page: distributions over the utterances of each split."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from memofast.data.corpus import MODALITIES, Corpus, Split
from memofast.prepare.run.report import REASONS, Outcome
from memofast.prepare.sources.leaks import filter_rules

_MOST_BINS = 30
_MOST_READ = 2000  # utterances of a split whose soft labels are read
_NO_WORDS = 2  # rows: [CLS], [SEP]


@dataclass(frozen=True)
class Spread:
    """How a number is distributed over a split. bins: utterances in equal steps from the measure's `low` to its
    `high`."""

    split: str
    utterances: int
    median: float
    bins: list[int]


@dataclass(frozen=True)
class Measure:
    """A number that utterances have. kind: of what: text, visual, speech or none. digits: after the point, when it is
    written down.

    low, high: ends of its axis.
    """

    title: str
    about: str
    kind: str
    digits: int
    low: float
    high: float
    spreads: list[Spread]


@dataclass(frozen=True)
class Shares:
    """Shares of classes per split. rows: (class, per split its share, None where the split has nothing). counts: where
    they are counts too.

    coloured: the classes have colours, by which they are known elsewhere on the page.
    """

    title: str
    about: str
    splits: list[str]
    rows: list[tuple[str, list[float | None]]]
    coloured: bool = False
    counts: dict[str, list[int]] | None = None


@dataclass(frozen=True)
class Reason:
    """A rule and how many clips it noticed; dropped: those of them that are not in the corpus, None where that is not
    known."""

    name: str
    meaning: str
    clips: int
    dropped: int | None


def measures(splits: Mapping[str, Split], outcomes: Mapping[str, Outcome]) -> list[Measure]:
    """Rows by modality, and what the journal of the preparation says about the utterances."""
    found = [_rows(splits, column, modality) for column, modality in enumerate(MODALITIES)]
    told = [
        ("Duration", "seconds of media", "", None, lambda o: o.source.seconds if o.source else None),
        ("Speech share", "part of the sound with a voice", "", 1.0, lambda o: o.spoken),
        ("Mouth motion", "steps a second that move", "visual", None, _moves_a_second),
        ("Mouth with voice", "part of these during speech", "visual", 1.0, _share_of_matches),
        ("Mouth and sound", "highest correlation over lags", "visual", 1.0, _correlation),
    ]
    for title, about, kind, high, number in told:
        values = {name: _numbers(split, outcomes, number) for name, split in splits.items()}
        found.append(_measure(title, about, kind, 2 if high else 1, values, high))
    return [measure for measure in found if measure]


def _share_of_matches(outcome: Outcome) -> float | None:
    return outcome.speaker.matches / outcome.speaker.moves if outcome.speaker and outcome.speaker.moves else None


def _correlation(outcome: Outcome) -> float | None:
    return outcome.speaker.correlation if outcome.speaker else None


def _moves_a_second(outcome: Outcome) -> float | None:
    if not (outcome.speaker and outcome.source and outcome.source.seconds):
        return None
    return outcome.speaker.moves / outcome.source.seconds


def _numbers(split: Split, outcomes: Mapping[str, Outcome], number: Callable[[Outcome], float | None]) -> np.ndarray:
    values = (number(outcomes[id]) for id in split.ids if id in outcomes)
    return np.array([value for value in values if value is not None])


def _rows(splits: Mapping[str, Split], column: int, modality: str) -> Measure | None:
    lengths = {name: split.lengths[:, column] for name, split in splits.items()}
    fewest = _NO_WORDS if modality == "text" else 0
    about = "word pieces with [CLS] and [SEP]" if modality == "text" else "rows of utterances that have any"
    present = {name: values[values > fewest] for name, values in lengths.items()}
    return _measure(f"{modality.capitalize()} rows", about, modality, 0, present)


def _measure(
    title: str, about: str, kind: str, digits: int, values: Mapping[str, np.ndarray], high: float | None = None
) -> Measure | None:
    """Values by split on an axis from 0, or the lowest below, to `high`, or the highest."""
    everything = np.concatenate(list(values.values())) if values else np.zeros(0)
    if not len(everything):
        return None
    low, high = min(0.0, float(everything.min())), high or max(float(everything.max()), 1e-3)
    if digits:
        edges = np.linspace(low, high, _MOST_BINS + 1)
    else:  # whole numbers: every bin holds equally many
        step = math.ceil((high + 1) / _MOST_BINS)
        edges = step * np.arange(math.ceil((high + 1) / step) + 1) - 0.5
    spreads = [
        Spread(name, len(found), float(np.median(found)), np.histogram(found, edges)[0].tolist())
        for name, found in values.items()
        if len(found)
    ]
    return Measure(title, about, kind, digits, low, high, spreads)


def coverage(splits: Mapping[str, Split]) -> list[tuple[str, int, dict[str, int]]]:
    """Of each split its name, utterances, and how many have each modality of the corpus and all three."""
    found = []
    for name, split in splits.items():
        has = split.lengths > np.array([_NO_WORDS, 0, 0])
        present = [(column, m) for column, m in enumerate(MODALITIES) if m in split.corpus.modalities]
        counts = {modality: int(has[:, column].sum()) for column, modality in present}
        together = {"all three": int(has.all(1).sum())} if len(present) == len(MODALITIES) else {}
        found.append((name, len(split), counts | together))
    return found


def label_shares(summary: dict) -> Shares | None:
    """Labels per split, out of `memofast.data.summary`."""
    splits = {name: found for name, found in summary["splits"].items() if found["labels"]}
    classes = dict.fromkeys(label for found in splits.values() for label in found["labels"])
    if not classes:
        return None
    counts = {label or "(none)": [found["labels"].get(label, 0) for found in splits.values()] for label in classes}
    totals = [found["samples"] for found in splits.values()]
    rows = [(label, [n / total for n, total in zip(line, totals, strict=True)]) for label, line in counts.items()]
    return Shares("Labels", "utterances by class", list(splits), rows, counts=counts)


def mean_shares(corpus: Corpus, splits: Mapping[str, Split], seed: int) -> list[Shares]:
    """Mean probabilities of the soft labels of faces, and of the emotions read out of the text, where the corpus has
    them."""
    given = (
        ("Soft labels of faces", "visual", "soft_labels", lambda rows: rows),
        ("Pseudo labels of text", "text", "emotions", lambda row: row[None] if row.any() else row[None][:0]),
    )
    found = []
    for title, modality, column, rows_of in given:
        store = corpus.stores.get(modality)
        classes = store.classes.get(column) if store else None
        if classes:
            means = {name: _mean(store, column, rows_of, split, seed) for name, split in splits.items()}
            read = {name: min(len(split), _MOST_READ) for name, split in splits.items()}
            part = ", ".join(f"{read[n]:,} of {len(splits[n]):,} {n}" for n in splits if read[n] < len(splits[n]))
            about = "mean probability" + (f"; of {part} utterances" if part else "")
            rows = [(c, [None if m is None else float(m[i]) for m in means.values()]) for i, c in enumerate(classes)]
            found.append(Shares(title, about, list(splits), rows, coloured=modality == "visual"))
    return found


def _mean(store, column: str, rows_of: Callable, split: Split, seed: int) -> np.ndarray | None:
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:_MOST_READ])
    ids = [split.ids[place] for place in chosen if split.ids[place] in store.rows_of]
    rows = [rows_of(store.read(id)[column].astype(np.float64)) for id in ids]
    rows = [found.reshape(len(found), -1) for found in rows if len(found)]
    return np.concatenate(rows).mean(0) if rows else None


def reasons(corpus: Corpus, summary: dict, outcomes: Mapping[str, Outcome]) -> list[Reason]:
    """Why clips were dropped or gave less than they could, most frequent first: the rules that the corpus names, else
    what its journal or its report counts."""
    rules = corpus.description.get("rules") or filter_rules(outcomes.values())
    if rules:
        found = [
            Reason(
                rule["rule"], rule.get("meaning", ""), rule.get("clips", rule.get("dropped", 0)), rule.get("dropped")
            )
            for rule in rules
        ]
    else:
        problems = summary["preparation"].get("problems", {})
        found = [Reason(name, REASONS.get(name, ""), clips, None) for name, clips in problems.items()]
    chosen = sum(bool(outcome.source and outcome.source.streams) for outcome in outcomes.values())
    found.append(Reason("track chosen", "of a file with several or an odd one; report.json says which", chosen, None))
    return sorted((reason for reason in found if reason.clips), key=lambda reason: -reason.clips)

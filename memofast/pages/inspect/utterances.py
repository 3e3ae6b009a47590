"""The utterances that the page shows: what the stores hold of them, what the journal says, and what they look and sound
like."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from memofast.data.corpus import Corpus
from memofast.data.summary import sentences
from memofast.prepare.media.excerpts import SAMPLE_RATE
from memofast.prepare.run.extraction import Extracted, Extraction, Heard
from memofast.prepare.run.replay import missing_media, replay
from memofast.prepare.run.report import Outcome, Source
from memofast.prepare.speech.raw import PICTURES, SAMPLES

MOST_TILES = 24
_TILES_A_SECOND = 10
_SAME_TIME = 2e-3  # seconds
_SAME_CONFIDENCE = 5e-3
_FULL_SCALE = 32768  # of 16 bit samples
_MOST_DROPPED = 12


@dataclass(frozen=True)
class Tile:
    """One place of a face strip. time: seconds from the clip's start; crop [side, side] uint8, None where no face was
    taken or none was found again."""

    time: float
    crop: np.ndarray | None = None
    confidence: float | None = None
    soft: tuple[str, float] | None = None


@dataclass
class Utterance:
    """One utterance. rows by modality; seconds of its media; tiles over all of them, equally spaced; soft [n, classes]
    labels at `times` [n].

    crops [n, side, side] uint8, in colour [n, side, side, 3], and wave [samples] float32: what raw rows hold, None of
    others. notes: what could not be replayed. outcome, replayed: None where the corpus keeps no journal, and
    where there was nothing to replay.
    """

    id: str
    text: str
    label: str | None
    rows: dict[str, int]
    outcome: Outcome | None = None
    replayed: Extracted | None = None
    seconds: float = 0.0
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0))
    soft: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    crops: np.ndarray | None = None
    wave: np.ndarray | None = None
    emotions: list[tuple[str, float]] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def source(self) -> Source | None:
        return self.outcome.source if self.outcome else None

    @property
    def heard(self) -> Heard | None:
        """Sound, with voice activity where it was replayed."""
        if self.replayed and self.replayed.heard:
            return self.replayed.heard
        return None if self.wave is None else Heard(self.wave, None, 0.0)


def sample(corpus: Corpus, outcomes: Mapping[str, Outcome], count: int, seed: int) -> dict[str, list[Utterance]]:
    """Utterances of each split drawn at random, as their stores and the journal tell of them."""
    return {
        split: [_read(corpus, outcomes.get(found["id"]), found) for found in sentences(corpus, split, count, seed)]
        for split in corpus.splits
    }


def _read(corpus: Corpus, outcome: Outcome | None, found: dict) -> Utterance:
    utterance = Utterance(**found, outcome=outcome)
    text, visual = corpus.stores["text"], corpus.stores.get("visual")
    emotions = text.read(utterance.id).get("emotions")
    if emotions is not None and emotions.any():
        named = zip(text.classes["emotions"], emotions.tolist(), strict=True)
        utterance.emotions = sorted(named, key=lambda pair: -pair[1])
    if visual and utterance.rows["visual"]:
        record = visual.read(utterance.id)
        utterance.times = record.get("times", utterance.times).astype(np.float64)
        utterance.confidence = record.get("confidence", utterance.confidence).astype(np.float64)
        utterance.soft = record.get("soft_labels", utterance.soft).astype(np.float64)
        side = isqrt(visual.width)
        if "visual" in corpus.raw and side * side == visual.width:
            utterance.crops = record["rows"].reshape(-1, side, side)
        side = isqrt(visual.width // 3)
        if "visual" in corpus.raw and 3 * side * side == visual.width:  # whole pictures
            utterance.crops = record["rows"].reshape(-1, side, side, 3)
    if "speech" in corpus.raw and utterance.rows["speech"]:
        rows = corpus.stores["speech"].read(utterance.id)["rows"]
        utterance.wave = _at_16_khz(rows.astype(np.float32) / _FULL_SCALE)
    source = utterance.source
    utterance.seconds = (source and source.seconds) or float(utterance.times.max(initial=0.0))
    if utterance.crops is not None and len(utterance.times):
        utterance.tiles = tiles_of(utterance, corpus.classes.get("soft_labels", []))
    return utterance


def _at_16_khz(rows: np.ndarray) -> np.ndarray:
    """Raw sound [n, width] as [samples] at 16 kHz; rows of another width than of that rate are 40 ms."""
    if rows.shape[1] == SAMPLES:
        return rows.reshape(-1)
    return resample_poly(rows.reshape(-1), SAMPLE_RATE, rows.shape[1] * PICTURES).astype(np.float32)


def replay_into(utterances: Iterable[Utterance], extraction: Extraction, classes: list[str], same_finder: bool) -> None:
    """Fill in what is replayed, tiles and notes of the utterances whose media are still there.

    Args: classes: of soft labels. same_finder: whether faces are found as they were, so that one that is not is worth a
        note.
    """
    by_id = {utterance.id: utterance for utterance in utterances}
    sources = {}
    for id, utterance in by_id.items():
        source = utterance.source
        if source is None or not (source.picture or source.sound):
            continue
        if missing := missing_media([source]):
            utterance.notes.append(f"Not there any more: {missing[0]}")
        else:
            sources[id] = source
    for found in replay(extraction, sources):
        utterance = by_id[found.clip.id]
        if found.span is None:  # it was not decoded
            utterance.notes += [f"Not looked at: {problem.detail}" for problem in found.problems]
            continue
        utterance.replayed = found
        if len(utterance.times) and extraction.finder:
            utterance.tiles = utterance.tiles or tiles_of(utterance, classes)
            if same_finder:
                _note_differences(utterance)


def tiles_of(utterance: Utterance, classes: list[str]) -> list[Tile]:
    """At most 24 places equally spaced over the clip, each with the crop of the row nearest to its middle."""
    end = max(utterance.seconds, float(utterance.times.max()) + 1 / _TILES_A_SECOND)
    count = int(np.clip(round(end * _TILES_A_SECOND), 1, MOST_TILES))
    middles = (np.arange(count) + 0.5) * end / count
    tiles = []
    for middle in middles:
        row = int(np.argmin(np.abs(utterance.times - middle)))
        near = abs(utterance.times[row] - middle) <= end / count / 2 + _SAME_TIME
        tiles.append(_tile(utterance, row, classes) if near else Tile(float(middle)))
    return tiles


def _tile(utterance: Utterance, row: int, classes: list[str]) -> Tile:
    time, replayed = float(utterance.times[row]), utterance.replayed
    crop = None
    if utterance.crops is not None:
        crop = utterance.crops[row]
    elif replayed.person:
        times = replayed.faces.times
        nearest = int(np.argmin(np.abs(times - time)))
        crop = replayed.person.track.faces[nearest].crop if abs(times[nearest] - time) <= _SAME_TIME else None
    confidence = float(utterance.confidence[row]) if len(utterance.confidence) else None
    soft = None
    if len(utterance.soft) and classes:
        best = int(np.argmax(utterance.soft[row]))
        soft = classes[best], float(utterance.soft[row, best])
    return Tile(time, crop, confidence, soft)


def _note_differences(utterance: Utterance) -> None:
    same = found_again(utterance)
    if same < len(utterance.times):
        utterance.notes.append(
            f"{same} of {len(utterance.times)} faces were found again as they were: the media may have changed since."
        )


def found_again(utterance: Utterance) -> int:
    """Rows whose face was found once more, at the same time and with the same confidence."""
    found = utterance.replayed.faces
    if found is None:
        return 0
    near = np.abs(found.times[:, None].astype(np.float64) - utterance.times[None])
    place = near.argmin(0)
    same = near.min(0) <= _SAME_TIME
    if len(utterance.confidence):
        same &= np.abs(found.confidence[place] - utterance.confidence) <= _SAME_CONFIDENCE
    return int(same.sum())


def some_dropped(outcomes: Mapping[str, Outcome]) -> list[Outcome]:
    """A few of the clips that are not in the corpus, of as many reasons as there are."""
    by_reason: dict[str, list[Outcome]] = {}
    for outcome in outcomes.values():
        if not outcome.kept:
            by_reason.setdefault(", ".join(problem.reason for problem in outcome.problems), []).append(outcome)
    chosen, depth = [], 0
    while len(chosen) < _MOST_DROPPED and any(len(found) > depth for found in by_reason.values()):
        chosen += [found[depth] for found in by_reason.values() if len(found) > depth]
        depth += 1
    return chosen[:_MOST_DROPPED]


def file_of(source: Source | None) -> Path | None:
    """The file that stands for a source."""
    name = source and (source.picture or source.sound)
    return Path(name) if name else None

"""The page of `memofast predict --html`: each film's timeline with the faces that its utterances were read from, in one
file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from memofast.inference.prediction import Prediction
from memofast.inference.predictor import Predictor
from memofast.inference.stretches import drawable, one_each
from memofast.inference.watching import Shown
from memofast.pages import drawing, inspect
from memofast.pages.inspect.page import clock, duration, percent
from memofast.version import __version__

_STRIP = 24  # faces over a timeline
_OF_ONE = 6  # faces of an utterance
_NEAR = 0.25  # seconds between a face and its place over the timeline
_PERSONS = 6  # of a film that have a timeline of their own

Faces = Mapping[tuple[str, int | None], Shown]  # by utterance and person


def page_of(predictions: Sequence[Prediction], shown: Faces, predictor: Predictor, source: str) -> str:
    """The page as HTML, which needs nothing beside it. shown: what was kept of the faces. Everything from outside is
    escaped."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(inspect.__file__).parent]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "duration": duration, "clock": clock, "face_data": drawing.face_data}
    classes = list(predictor.classes) if predictor.kind != "regression" else []
    gathered = {
        "title": Path(source).name,
        "model": str(predictor.folder.resolve()),
        "version": __version__,
        "colours": drawing.class_colours(classes),
        "counts": Counter(p.named for p in predictions if p.named and p.speaks).most_common(),
        "films": [film(file, rows, shown) for file, rows in _by_file(predictions).items()],
        "utterances": len({(p.file, p.id) for p in predictions}),
        "others": sum(not p.speaks for p in predictions),
        "faces": {key: some_of(person.crops) for key, person in shown.items()},
    }
    return environment.get_template("prediction.html").render(gathered)


def _by_file(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        found.setdefault(prediction.file or "", []).append(prediction)
    return found


def film(file: str, rows: Sequence[Prediction], shown: Faces) -> SimpleNamespace:
    """What is shown of a file: its predictions, how long it lasts, its timeline, and where several people are seen one
    of each of those seen most."""
    timed = [row for row in rows if row.start is not None and row.end is not None]
    seconds = max((row.end for row in timed), default=0.0)
    persons = Counter(row.track for row in timed if row.track) if not all(row.speaks for row in timed) else Counter()
    lanes = [lane("", one_each(timed), shown, seconds)] if seconds else []
    for person, _ in persons.most_common(_PERSONS):
        lanes.append(lane(f"person {person}", [row for row in timed if row.track == person], shown, seconds))
    return SimpleNamespace(
        name=Path(file).name, rows=rows, seconds=seconds, ticks=drawing.ticks(seconds) if seconds else [], lanes=lanes,
        stretch=max((lane.stretch for lane in lanes), default=0.0), left_out=len(persons) - len(lanes[1:]),
    )  # fmt: skip


def lane(name: str, timed: Sequence[Prediction], shown: Faces, seconds: float) -> SimpleNamespace:
    """A timeline over the length of the film: blocks of classes, and equally spaced faces above them."""
    drawn, stretch = drawable(timed, seconds)
    blocks = [_block(row, seconds) for row in drawn]
    return SimpleNamespace(name=name, blocks=blocks, stretch=stretch, strip=strip(timed, shown, seconds))


def _block(row: Prediction, seconds: float) -> SimpleNamespace:
    """Where an utterance lies on the timeline, in percent, and the shares of its classes."""
    total = max(sum(row.probabilities.values()), 1e-9)
    shares = [(name, 100 * p / total) for name, p in row.probabilities.items()]
    return SimpleNamespace(
        row=row, left=100 * row.start / seconds, width=100 * (row.end - row.start) / seconds, shares=shares
    )


def some_of(crops: Sequence[np.ndarray]) -> list[np.ndarray]:
    """At most six of them, equally spaced."""
    places = np.unique(np.linspace(0, len(crops) - 1, min(_OF_ONE, len(crops))).round().astype(int))
    return [crops[place] for place in places]


def strip(timed: Sequence[Prediction], shown: Faces, seconds: float) -> list:
    """At equally spaced places the kept crop that is nearest, None where none is near; empty where there are no faces
    at all."""
    faces = [
        (time, crop)
        for row in timed
        if (person := shown.get((row.id, row.track)))
        for time, crop in zip(person.times, person.crops, strict=True)
    ]
    if not faces or not seconds:
        return []
    width = seconds / _STRIP
    places = []
    for number in range(_STRIP):
        middle = (number + 0.5) * width
        time, crop = min(faces, key=lambda face: abs(face[0] - middle))
        places.append(crop if abs(time - middle) <= max(width / 2, _NEAR) else None)
    return places

"""Mean and standard deviation of the pixels of a corpus's own faces, from a sample of its clips.

MEmoBERT normalised the faces of each corpus by numbers of that corpus. The sample depends on the clips' ids alone and
the sums are whole numbers, so that the result does not depend on workers; it is fixed in `prepare.json` before the
first row is written.
"""

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memofast.files import write_json
from memofast.prepare.faces.detection import CROP
from memofast.prepare.faces.extractors import SQUARES, FaceChoice, PixelSums, open_face
from memofast.prepare.run.corpus_stores import StorePlan
from memofast.prepare.run.extraction import ExtractionOptions, by_file
from memofast.prepare.run.settings import read_settings
from memofast.prepare.run.shards import Task, WorkOrder, make_tasks
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import parse_speech
from memofast.store import FeatureStore

SAMPLE = 200  # clips
_SECONDS = 5.0  # of each
_LEAST_STD = 1.0  # grey levels
_ENTRY, _SHARDS = "face_pixels", "pixels"

Engine = Callable[[list[Task], WorkOrder, int], Iterator[tuple[Task | None, bool]]]


@dataclass(frozen=True)
class FacePixels:
    """mean, std: of the pixels of the main faces of `clips` clips, on the 0..255 scale, to four decimals; faces: how
    many those were, 0: no mean."""

    mean: float
    std: float
    faces: int
    clips: int


def corpus_pixels(
    settings: Path, clips: list[Clip], extraction: ExtractionOptions, workers: int, engine: Engine
) -> FacePixels:
    """The numbers that the file `settings` holds, otherwise those of a sample of `clips`, which are written there.

    engine: as `workers.run_local`. Raises: MemofastError where the extractor that will use them does not open.
    """
    described = read_settings(settings.parent)
    if _ENTRY in described:
        return FacePixels(**described[_ENTRY])
    open_face(extraction.face)  # a mistake is told before the work
    pixels = _measure(clips, settings.parent / _SHARDS, extraction, workers, engine)
    write_json(settings, {**described, _ENTRY: vars(pixels)})
    return pixels


def _measure(
    clips: list[Clip], shards: Path, extraction: ExtractionOptions, workers: int, engine: Engine
) -> FacePixels:
    chosen = sorted((clip for clip in clips if clip.picture and not clip.problem), key=_place)[:SAMPLE]
    # without their sound: neither decoded nor missed
    bare = (Clip(clip.id, clip.picture, start=clip.start, end=clip.end) for clip in chosen)
    files = by_file(sorted(bare, key=lambda clip: clip.id))
    seconds = min(_SECONDS, extraction.max_seconds)
    options = ExtractionOptions(
        FaceChoice("pixels"), extraction.yunet, parse_speech("none", None), seconds, streams=extraction.streams
    )
    sums = {"width": PixelSums.width, "columns": ("times", "confidence"), "dtype": "float32"}
    shutil.rmtree(shards, ignore_errors=True)  # of a run that was killed
    of_clip: dict[str, tuple[int, np.ndarray]] = {}
    tasks = make_tasks(files, shards, (), workers)
    for task, _ in engine(tasks, WorkOrder(options, StorePlan(visual=sums), None), workers):
        if task is not None and task.folder.is_dir():
            of_clip |= _sums_in(task.folder)
    shutil.rmtree(shards, ignore_errors=True)
    faces = sum(count for count, _ in of_clip.values())
    if not faces:
        return FacePixels(0.0, _LEAST_STD, 0, len(chosen))
    total, high, low = (int(value) for value in sum(values for _, values in of_clip.values()))
    count, squares = faces * CROP * CROP, high * SQUARES + low
    std = math.sqrt((count * squares - total * total) / count**2)
    return FacePixels(round(total / count, 4), round(max(std, _LEAST_STD), 4), faces, len(chosen))


def _sums_in(shard: Path) -> dict[str, tuple[int, np.ndarray]]:
    """Faces of each clip of a shard, and the sums of their rows [3] int64."""
    store = FeatureStore.open(shard / "visual")
    rows = {id: store.read(id)["rows"] for id in store.rows_of}
    return {id: (len(part), np.asarray(part, np.float64).sum(0).astype(np.int64)) for id, part in rows.items()}


def _place(clip: Clip) -> bytes:
    return hashlib.blake2b(clip.id.encode(), digest_size=8).digest()

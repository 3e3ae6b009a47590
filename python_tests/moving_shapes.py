"""A generated audio-visual corpus whose class needs both pictures and sound, and in them what changes with time: a
square moves to one side or the other while it ticks, faster and faster or slower and slower. Played backwards a clip is
of another class, so that mean picture and spectrum are alike for all."""

from pathlib import Path

import numpy as np

from memofast.data import Corpus, write_corpus
from memofast.store import FeatureWriter, TextWriter

CLASSES = ("left-slower", "left-faster", "right-slower", "right-faster")
_COLOUR = np.array([230, 120, 40])


def pictures(right: bool, frames: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """[frames, side, side, 3] uint8: a square that crosses half of the picture."""
    size = 3 * side // 8
    top = rng.integers(side - size)
    middle = rng.uniform(0.4, 0.6) * (side - size)
    film = rng.integers(0, 40, (frames, side, side, 3))
    for number in range(frames):
        way = (number / max(1, frames - 1) - 0.5) * (1 if right else -1)
        left = round(float(np.clip(middle + way * (side - size), 0, side - size)))
        film[number, top : top + size, left : left + size] = _COLOUR
    return film.astype(np.uint8)


def sound(faster: bool, frames: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """[frames * samples] float32: ticks, three in four of them in one half of the clip, over noise."""
    length, tick = frames * samples, np.sin(np.linspace(0, np.pi, samples // 4))
    times = (np.arange(3 * frames) + rng.random(3 * frames)) / (3 * frames)
    times = times**0.5 if faster else 1 - times**0.5
    heard = 0.02 * rng.standard_normal(length)
    for begin in (times * (length - len(tick))).astype(int):
        heard[begin : begin + len(tick)] += 0.4 * tick
    return heard.clip(-1, 1).astype(np.float32)


def shapes_corpus(
    folder: Path,
    samples: dict[str, int],
    side: int = 16,
    per_frame: int = 64,
    frames: tuple[int, int] = (8, 14),
    seed=0,
) -> Corpus:
    """A corpus of raw pictures and sound. samples: by split; frames: fewest and most of a clip."""
    rng = np.random.default_rng(seed)
    splits, number = {}, 0
    pictured, heard_as = f"frames-1-25-side-{side}", f"raw-1-{25 * per_frame}-{per_frame}"
    with (
        TextWriter(folder / "text", classes=CLASSES) as text,
        FeatureWriter(folder / "visual", 3 * side * side, dtype="uint8", fingerprint=pictured) as visual,
        FeatureWriter(folder / "speech", per_frame, dtype="int16", fingerprint=heard_as) as speech,
    ):
        for split, count in samples.items():
            splits[split] = []
            for _ in range(count):
                id, kind = f"{split}{number:05}", number % 4
                length = int(rng.integers(frames[0], frames[1] + 1))
                film = pictures(kind >= 2, length, side, rng)
                heard = sound(kind % 2 == 1, length, per_frame, rng)
                text.put(id, [], [], label=kind)
                visual.put(id, film.reshape(length, -1))
                speech.put(id, np.round(heard * 32767).clip(-32768, 32767).astype(np.int16).reshape(length, -1))
                splits[split].append(id)
                number += 1
    stores = {name: folder / name for name in ("text", "visual", "speech")}
    return write_corpus(folder, folder.name, stores, splits)

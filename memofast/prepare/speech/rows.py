"""Rows of speech out of frames: means of some, some side by side, or functionals of parts of an utterance, and when
each row is."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

SHORTEST = 800  # samples; less than 50 ms has no row


def mean_rows(rows: np.ndarray, k: int) -> np.ndarray:
    """Means of k consecutive rows, the last group as long as it is: [n, width] -> [ceil(n / k), width]."""
    if k == 1 or len(rows) == 0:
        return rows
    starts = np.arange(0, len(rows), k)
    counts = np.diff(np.append(starts, len(rows)))
    return (np.add.reduceat(rows, starts, axis=0, dtype=np.float64) / counts[:, None]).astype(np.float32)


def stacked_rows(frames: np.ndarray, k: int) -> np.ndarray:
    """k consecutive frames side by side, the last row filled with zeros: [n, width] -> [ceil(n / k), k * width]."""
    rows = np.zeros((-(-len(frames) // k) * k, frames.shape[1]), frames.dtype)
    rows[: len(frames)] = frames
    return rows.reshape(-1, k * frames.shape[1])


def functionals(frames: np.ndarray, parts: Sequence[int]) -> np.ndarray:
    """Mean, then standard deviation, of the frames of each part, where an utterance is divided into so many equal parts
    in turn; of one frame the deviation is 0, and of few frames there are as many parts as frames. [n, width] -> [sum of
    parts, 2 width] float32."""
    pieces = [frames[first:last].astype(np.float64) for first, last in parts_of(len(frames), parts)]
    rows = [np.concatenate((piece.mean(0), piece.std(0))) for piece in pieces]
    return np.array(rows, np.float32).reshape(-1, 2 * frames.shape[1])


def parts_of(frames: int, parts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First frame of each part, and the one behind its last."""
    for number in parts if frames else ():
        edges = np.linspace(0, frames, min(number, frames) + 1).round().astype(int)
        yield from pairwise(edges.tolist())


def row_times(count: int, k: int, hop: float, window: float) -> np.ndarray:
    """Middles of what each k of `count` rows cover, in seconds from the sound's start: [ceil(count / k)] float32."""
    first = np.arange(0, count, k)
    last = np.minimum(first + k, count) - 1
    return ((first + last) * (hop / 2) + window / 2).astype(np.float32)

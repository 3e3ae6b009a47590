"""Windows of clips: which pictures and which sound a Perceiver looks at together.

A row of pictures and a row of sound both last 1/25 s, so that a window is the same rows of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memofast.data.modality import FEATURES
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.ops import philox
from memofast.ops.philox import Purpose

_SITE = 0x50 << 8  # of the draw that chooses a window; no augmentation of faces draws there
_PIXEL, _SAMPLE = 255.0, 32768.0


class Windows(NamedTuple):
    """Windows of samples that show the same modalities. samples, starts: [n] int64, whose they are and at which of
    their rows they begin; shown: which of visual and speech."""

    samples: Tensor
    starts: Tensor
    shown: tuple[str, ...]


def lengths_of(view: View, frames: int) -> tuple[dict[str, Tensor], Tensor]:
    """Rows [B] int64 of each modality, and of each sample where both are there.

    Raises: `MemofastError` for a sample without pictures and sound, or shorter than a window, naming it.
    """
    batch = view.batch
    none = torch.zeros(batch.samples, dtype=torch.int64)
    lengths = {
        name: none if batch.rows_of(name) is None else batch.offsets_of(name).diff().to("cpu", torch.int64)
        for name in FEATURES
    }
    both = torch.stack([torch.where(own > 0, own, own.new_tensor(2**31)) for own in lengths.values()]).amin(0)
    for number, rows in enumerate(both.tolist()):
        if rows < frames or rows == 2**31:
            raise MemofastError(f"sample {batch.ids[number]!r} {problem_of(0 if rows == 2**31 else rows, frames)}")
    return lengths, both


def problem_of(rows: int, frames: int) -> str:
    """What is wrong with a sample of so few rows."""
    if not rows:
        return "has neither pictures nor sound that are shown; leave it out, or show what it has"
    return (
        f"lasts {rows / 25:.2f} s, a window of {frames} pictures {frames / 25:.2f} s; leave it out, or lower "
        "model.num_frames"
    )


def drawn_windows(view: View, frames: int, rng: Tensor) -> list[Windows]:
    """One window of each sample, at a place that seed and update choose."""
    lengths, both = lengths_of(view, frames)
    key = philox.stream_key(rng, Purpose.AUGMENTATION, _SITE)
    zero = torch.zeros(1, dtype=torch.int64, device=rng.device)
    words = philox.draw(key, view.keys.to(rng.device), zero, zero)[:, 0].cpu()
    samples = torch.arange(len(both))
    return _by_shown(samples, philox.below(words, both - frames + 1), lengths)


def every_window(view: View, frames: int, hop: int) -> list[Windows]:
    """Windows every `hop` rows and at each sample's end."""
    lengths, both = lengths_of(view, frames)
    samples, starts = [], []
    for number, rows in enumerate(both.tolist()):
        own = sorted({*range(0, rows - frames, hop), rows - frames})
        samples += [number] * len(own)
        starts += own
    return _by_shown(torch.tensor(samples, dtype=torch.int64), torch.tensor(starts, dtype=torch.int64), lengths)


def _by_shown(samples: Tensor, starts: Tensor, lengths: dict[str, Tensor]) -> list[Windows]:
    kinds = sum((lengths[name][samples] > 0) << place for place, name in enumerate(FEATURES))
    found = []
    for kind in kinds.unique().tolist():
        shown = tuple(name for place, name in enumerate(FEATURES) if kind >> place & 1)
        found.append(Windows(samples[kinds == kind], starts[kinds == kind], shown))
    return found


def in_parts(windows: Sequence[Windows], at_once: int) -> Iterator[Windows]:
    for one in windows:
        for first in range(0, len(one.samples), at_once):
            part = slice(first, first + at_once)
            yield Windows(one.samples[part], one.starts[part], one.shown)


def read_window(view: View, name: str, windows: Windows, frames: int, width: int) -> Tensor:
    """Rows of windows [n, frames, width] float32, pixels of 0 to 1 or samples of -1 to 1; a hidden row is zero."""
    batch = view.batch
    rows, first = batch.rows_of(name), batch.offsets_of(name)[:-1].to("cpu", torch.int64)[windows.samples]
    places = (first + windows.starts)[:, None] + torch.arange(frames)
    places = places.to(rows.device)
    if (source := view.sources.get(name)) is not None:
        shown = source[places]
        places, hidden = shown.clamp(min=0).to(torch.int64), shown < 0
    values = rows[places, :width].to(torch.float32) / (_PIXEL if name == "visual" else _SAMPLE)
    return values if source is None else values.masked_fill(hidden[..., None], 0.0)

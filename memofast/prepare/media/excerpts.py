"""What is asked of a media file, and what a piece of it holds."""

import math
from dataclasses import dataclass, field

import numpy as np

from memofast.errors import MemofastError

SAMPLE_RATE = 16_000
_FULL_SCALE = 1.25  # resampling and lossy codecs overshoot 1 by as much; what is louder was written on another scale
_CANCELLED = 0.05  # share of a channel's power below which the mean of both has lost it


class UnreadableMedia(MemofastError):
    """A file that does not open, or that holds neither picture nor sound."""


class MediaPointer(UnreadableMedia):
    """A Git LFS pointer in place of a file."""


@dataclass(frozen=True)
class Span:
    """A piece of a file, in seconds from its start; `end` may be infinite."""

    start: float = 0.0
    end: float = math.inf


@dataclass
class Excerpt:
    """What one span held.

    times: seconds from the start of the span, one per kept frame. seen: what the frame function returned for each.
    picture_end: until when the last picture was to be seen, None without one. sound: [samples] float32 at 16 kHz mono,
    None without a sound track; fine: the same at the rate that was asked for beside, None where none was. complete:
    False where the file broke off or was damaged; missing: what its structure says of that. read: whether any track was
    decoded. goes_on: the file does not end with the span. skipped: seconds before the span that were left out because
    nobody speaks in them. file_seconds: how long the file says it is, None where it does not. notes: what was done to
    picture or sound, as reason (a key of `report.REASONS`) and detail. streams: which tracks were read, where that is
    not plain.
    """

    times: list[float] = field(default_factory=list)
    seen: list = field(default_factory=list)
    picture_end: float | None = None
    sound: np.ndarray | None = None
    fine: np.ndarray | None = None
    complete: bool = True
    missing: str = ""
    read: bool = True
    goes_on: bool = False
    skipped: float = 0.0
    file_seconds: float | None = None
    notes: list[tuple[str, str]] = field(default_factory=list)
    streams: str = ""


class Gathering:
    """Rows and sound of one span while it is being decoded. fine_rate: at which sound is gathered beside, None: at
    none."""

    def __init__(self, index: int, span: Span, fine_rate: int | None = None):
        self.index, self.span, self._fine_rate = index, span, fine_rate
        self.excerpt = Excerpt()
        self._pieces: dict[int, list[tuple[int, np.ndarray]]] = {}

    def add_frame(self, time: float, row: object) -> None:
        self.excerpt.times.append(time - self.span.start)
        self.excerpt.seen.append(row)

    def show_until(self, time: float) -> None:
        """A picture of this span is seen until `time`."""
        self.excerpt.picture_end = min(time, self.span.end) - self.span.start

    def add_sound(self, first: int, samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
        """samples [channels, n] at a rate, of which the first is the `first` of the file."""
        begin = round(self.span.start * rate)
        low, high = max(first, begin), first + samples.shape[1]
        if math.isfinite(self.span.end):
            high = min(high, round(self.span.end * rate))
        if low < high:
            self._pieces.setdefault(rate, []).append((low - begin, samples[:, low - first : high - first]))

    def finish(self, has_sound: bool) -> tuple[int, Excerpt]:
        """Index and excerpt of the span, its sound joined to one channel."""
        if has_sound:
            self.excerpt.sound, notes = one_channel(self._joined(SAMPLE_RATE))
            self.excerpt.notes += notes  # of the finer sound they would be the same
            if self._fine_rate:
                self.excerpt.fine, _ = one_channel(self._joined(self._fine_rate))
        return self.index, self.excerpt

    def _joined(self, rate: int) -> np.ndarray:
        pieces = self._pieces.get(rate, [])
        length = max((at + piece.shape[1] for at, piece in pieces), default=0)
        channels = np.zeros((max((len(piece) for _, piece in pieces), default=1), length), np.float32)
        for at, piece in pieces:
            channels[:, at : at + piece.shape[1]] = piece
        return channels


def one_channel(channels: np.ndarray) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """The mean of [1 or 2, n] float32, [n], and what had to be done to it: the loudest channel where they cancel each
    other, scaled to a peak of 1 where it lies on another scale."""
    notes = []
    power = [float(channel @ channel) for channel in channels]
    if not np.isfinite(power).all() and (bad := int(np.count_nonzero(~np.isfinite(channels)))):
        channels = np.nan_to_num(channels, nan=0.0, posinf=0.0, neginf=0.0)
        power = [float(channel @ channel) for channel in channels]
        notes.append(("sound mended", f"{bad} samples are no numbers; silent there"))
    sound = channels[0]
    if len(channels) == 2:
        sound = channels[0] + channels[1]
        sound *= 0.5
        loudest = int(np.argmax(power))
        if float(sound @ sound) < _CANCELLED * power[loudest]:
            sound = channels[loudest]
            notes.append(("out of phase", f"channel {loudest + 1} of 2 is used"))
    peak = float(max(sound.max(initial=0.0), -sound.min(initial=0.0)))
    if peak > _FULL_SCALE:
        sound = sound / np.float32(peak)
        notes.append(("over full scale", f"peak {peak:.4g}, scaled to 1"))
    return np.ascontiguousarray(sound), notes

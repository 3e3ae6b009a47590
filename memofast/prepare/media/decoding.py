"""One decoding pass per file with PyAV: only kept frames are converted, sound is resampled on the way.

Frames are handed to a function as they come and never stored, so that memory does not grow with the length of the file.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import av
import numpy as np

from memofast.errors import MemofastError

av.logging.set_level(av.logging.PANIC)  # a broken file is reported once, by us

FRAMES_PER_SECOND = 10
SAMPLE_RATE = 16_000
LONGEST_SIDE = 640  # larger pictures are scaled down while they are converted
SEEK_GAP = 10.0  # seconds between wanted spans that are skipped by seeking instead of decoding
_SMALL_PICTURE = 640 * 480  # below this, starting decoder threads costs more than they give
_SOUND_GAP = 0.1  # seconds by which time stamps may drift before they are believed over the sample count


class UnreadableMedia(MemofastError):
    """A file that does not open, or that holds neither picture nor sound."""


@dataclass(frozen=True)
class Span:
    """A piece of a file, in seconds from its start; `end` may be infinite."""

    start: float = 0.0
    end: float = math.inf


@dataclass
class Excerpt:
    """What one span held.

    times: seconds from the start of the span, one per kept frame. seen: what the frame function returned for each.
    sound: [samples] float32 at 16 kHz mono, None without a sound track. complete: False where the file broke off or was
    damaged.
    """

    times: list[float] = field(default_factory=list)
    seen: list = field(default_factory=list)
    sound: np.ndarray | None = None
    complete: bool = True


def decode(
    path: Path,
    spans: Iterable[Span],
    *,
    see: Callable[["Frame"], object] | None,
    glance: Callable[["Frame"], None] | None = None,
    sound: bool = True,
) -> Iterator[tuple[int, Excerpt]]:
    """Decode `path` once and yield `(index of span, excerpt)` as spans end.

    Args: see, called with every kept frame, the first at or after each tenth of a second; None leaves the picture
    alone. glance, called with the frames between. sound, whether sound is wanted.
    Raises: UnreadableMedia. A file damaged in the middle yields what could be decoded, marked incomplete.
    """
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableMedia(f"{path} is not readable media ({_reason(error)}); check or re-encode it") from error
    with container:
        reader = _Reader(container, path, see, glance, sound)
        for group in _groups(spans):
            yield from reader.read(group)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _groups(spans: Iterable[Span]) -> list[list[tuple[int, Span]]]:
    """Spans in time order, split where the gap to the next one is worth a seek."""
    groups: list[list[tuple[int, Span]]] = []
    reached = -math.inf
    for index, span in sorted(enumerate(spans), key=lambda item: (item[1].start, item[1].end)):
        if not groups or span.start - reached > SEEK_GAP:
            groups.append([])
        groups[-1].append((index, span))
        reached = max(reached, span.end)
    return groups


class _Gathering:
    """Rows and sound of one span while it is being decoded."""

    def __init__(self, index: int, span: Span):
        self.index, self.span = index, span
        self.excerpt = Excerpt()
        self.pieces: list[tuple[int, np.ndarray]] = []

    def add_frame(self, time: float, row: object) -> None:
        self.excerpt.times.append(time - self.span.start)
        self.excerpt.seen.append(row)

    def add_sound(self, first: int, samples: np.ndarray) -> None:
        begin = round(self.span.start * SAMPLE_RATE)
        low = max(first, begin)
        high = first + len(samples)
        if math.isfinite(self.span.end):
            high = min(high, round(self.span.end * SAMPLE_RATE))
        if low < high:
            self.pieces.append((low - begin, samples[low - first : high - first]))

    def finish(self, has_sound: bool) -> tuple[int, Excerpt]:
        if has_sound:
            length = max((at + len(piece) for at, piece in self.pieces), default=0)
            self.excerpt.sound = np.zeros(length, np.float32)
            for at, piece in self.pieces:
                self.excerpt.sound[at : at + len(piece)] = piece
        return self.index, self.excerpt


class _Reader:
    def __init__(self, container, path: Path, see: Callable | None, glance: Callable | None, sound: bool):
        self.container, self.see, self.glance = container, see, glance
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        self.picture = pictures[0] if see and pictures else None
        self.sound = container.streams.audio[0] if sound and container.streams.audio else None
        if not pictures and not container.streams.audio:
            raise UnreadableMedia(f"{path} holds neither picture nor sound; leave it out")
        if self.picture:
            self._choose_threads(self.picture.codec_context)
        self.origin = (container.start_time or 0) / av.time_base
        self.duration = None if container.duration is None else container.duration / av.time_base

    @staticmethod
    def _choose_threads(codec) -> None:
        if codec.width * codec.height <= _SMALL_PICTURE:
            codec.thread_count = 1
        codec.thread_type = "SLICE"  # frame threads delay the first frames and gain nothing on short spans

    def read(self, group: list[tuple[int, Span]]) -> Iterator[tuple[int, Excerpt]]:
        """Excerpts of a group of neighbouring spans."""
        waiting = [_Gathering(index, span) for index, span in group]
        if not (self.picture or self.sound):
            yield from (gathering.finish(False) for gathering in waiting)
            return
        self._begin(group[0][1].start)
        last = max(span.end for _, span in group)
        reached = dict.fromkeys(filter(None, (self.picture, self.sound)), -math.inf)
        damaged = False
        for stream, frame in self._frames(tuple(reached)):
            if frame is None:
                damaged = True
                continue
            reached[stream] = self._take(stream, frame, waiting)
            passed = min(reached.values())
            while waiting and passed >= waiting[0].span.end:
                yield waiting.pop(0).finish(self.sound is not None)
            if passed >= last:
                break
        self._take_sound(None, waiting)
        end = max(reached.values())
        for gathering in waiting:
            promised = min(gathering.span.end, self.duration or math.inf)
            cut_short = math.isfinite(promised) and end < promised - 1.0
            gathering.excerpt.complete = not (damaged or cut_short)
            yield gathering.finish(self.sound is not None)

    def _begin(self, start: float) -> None:
        if start > SEEK_GAP:
            self.container.seek(round((start - 1.0 + self.origin) * av.time_base))
        self.last_slot = -1
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE) if self.sound else None
        self.next_sample: int | None = None

    def _frames(self, streams: tuple) -> Iterator[tuple]:
        """Decoded frames in file order; `(None, None)` stands for data that could not be decoded."""
        packets = self.container.demux(streams)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except av.error.EOFError:
                continue
            except av.error.InvalidDataError:
                yield None, None
                continue
            except av.error.FFmpegError:
                yield None, None
                return
            for frame in frames:
                if frame.time is not None:
                    yield packet.stream, frame

    def _take(self, stream, frame, waiting: list[_Gathering]) -> float:
        """Hand a frame to the spans that want it; returns the time up to which its stream has been read."""
        time = frame.time - self.origin
        if stream is self.sound:
            self._take_sound(frame, waiting)
            return time + frame.samples / frame.sample_rate
        slot = math.floor(time * FRAMES_PER_SECOND + 1e-4)
        wanting = [g for g in _begun(waiting, time) if time < g.span.end]
        if wanting and slot > self.last_slot:
            self.last_slot = slot
            row = self.see(Frame(frame, time))
            for gathering in wanting:
                gathering.add_frame(time, row)
        elif wanting and self.glance:
            self.glance(Frame(frame, time))
        return time

    def _take_sound(self, frame, waiting: list[_Gathering]) -> None:
        if self.resampler is None:
            return
        if frame is not None:
            at = round((frame.time - self.origin) * SAMPLE_RATE)
            if self.next_sample is None or abs(at - self.next_sample) > _SOUND_GAP * SAMPLE_RATE:
                self.next_sample = at
        elif self.next_sample is None:
            return
        for piece in self.resampler.resample(frame):
            samples = piece.to_ndarray().reshape(-1).astype(np.float32) / 32768
            after = self.next_sample + len(samples)
            for gathering in _begun(waiting, after / SAMPLE_RATE):
                gathering.add_sound(self.next_sample, samples)
            self.next_sample = after


def _begun(waiting: list[_Gathering], time: float) -> Iterator[_Gathering]:
    """Those whose span begins at `time` or before; they are in order of their start, and a long film has thousands that
    come later."""
    return takewhile(lambda gathering: gathering.span.start <= time, waiting)


class Frame:
    """A decoded frame at `time`, seconds from the file's start, converted only as far as it is looked at."""

    def __init__(self, frame: av.VideoFrame, time: float):
        self._frame, self.time = frame, time

    def picture(self) -> np.ndarray:
        """[height, width, 3] uint8 BGR, upright, its longest side at most 640, scaled and converted in one step."""
        return self._convert("bgr24")

    def grey(self) -> np.ndarray:
        """[height, width] uint8, of the size of `picture`."""
        return self._convert("gray")

    def _convert(self, format: str) -> np.ndarray:
        frame = self._frame
        scale = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
        width, height = round(frame.width * scale), round(frame.height * scale)
        picture = frame.to_ndarray(format=format, width=width, height=height, threads=1)
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

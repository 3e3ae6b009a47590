"""One decoding pass per file with PyAV: only kept frames are converted, sound is resampled on the way.

Frames are handed to a function as they come and never stored, so that memory does not grow with the length of the file.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count, takewhile
from pathlib import Path

import av
import numpy as np

from memofast.errors import MemofastError
from memofast.files import refuse_pointer
from memofast.prepare.media.clock import JOINABLE, LEAPING, Clock, end_of, is_joined
from memofast.prepare.media.excerpts import SAMPLE_RATE, Excerpt, Gathering, MediaPointer, Span, UnreadableMedia
from memofast.prepare.media.sound import SoundTrack
from memofast.prepare.media.streams import ANY_STREAM, StreamChoice, choose_streams, pixel_width
from memofast.prepare.media.truncation import breaks_off

av.logging.set_level(av.logging.PANIC)  # a broken file is reported once, by us

FRAMES_PER_SECOND = 10
LONGEST_SIDE = 640  # larger pictures are scaled down while they are converted
SEEK_GAP = 10.0  # seconds between wanted spans that are skipped by seeking instead of decoding
_SMALL_PICTURE = 640 * 480  # below this, starting decoder threads costs more than they give
_LEAD = 1.0  # seconds before a wanted span that are sought
_FURTHER = 4.0  # times as far back where the first frame came too late
_LANDINGS = 3  # seeks that may lead behind what was sought before that is taken for a gap in the file
_BETWEEN = 1e-3  # seconds between stamps that are the same
_CUT_SHORT, _SHORTEST_CUT = 1.0, 0.2  # seconds that may lack of the length a file says it has; of short ones a tenth
_GOES_ON = 0.1  # seconds behind a span from which a file is said to go on
_LONGEST_SHOWN = 60.0  # seconds for which a picture without a duration may be seen
_GUESSED = {"aac"}  # formats without a length, where libav tells one by the first frames
_COUNTED = {
    "aac",
    "mp3",
    "ac3",
    "eac3",
}  # formats without time stamps, where libav counts by the rate of the first frame
_UNREAD = 0.1  # share of a file behind its last packet from which something there was not understood
_LEAST_BYTES = 50  # a second; files with fewer are not as long as their stamps say
_FROM_ZERO = {"matroska", "mov", "flv"}  # formats whose length may count from 0 where the first frame comes later


def decode(
    path: Path,
    spans: Iterable[Span],
    *,
    see: Callable[["Frame"], object] | None,
    glance: Callable[["Frame"], None] | None = None,
    sound: bool = True,
    streams: StreamChoice = ANY_STREAM,
    frame_rate: int = FRAMES_PER_SECOND,
    fine_rate: int | None = None,
) -> Iterator[tuple[int, Excerpt]]:
    """Decode `path` once and yield `(index of span, excerpt)` as spans end.

    Args: see, called with every kept frame, the first at or after each tenth of a second, or as many a second as
    frame_rate; None leaves the picture alone. glance, called with the frames between. sound, whether sound is wanted,
    and fine_rate, at which beside 16 kHz. streams, which tracks are read.
    Recordings that were joined in one file follow each other on one clock. Raises: UnreadableMedia; MemofastError where
    a track that was asked for is not there. A file damaged in the middle yields what could be decoded, marked
    incomplete.
    """
    reader = _Reader(path, see, glance, sound, streams, frame_rate, fine_rate)
    try:
        for group in reader.groups(spans):
            yield from reader.read(group)
    finally:
        reader.container.close()


def length_of(path: Path) -> float | None:
    """Seconds that a file lasts, None where it does not say or does not open; one without an index is read through."""
    try:
        reader = _Reader(path, None, None, True, ANY_STREAM)
    except MemofastError:
        return None
    with reader.container:
        if reader.format in JOINABLE | _GUESSED:
            end = end_of(path, tuple(reader.watched))
            return None if end is None else end - reader.origin
        return reader.duration


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _open(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        try:
            refuse_pointer(path)
        except MemofastError as pointer:
            raise MediaPointer(str(pointer)) from None
        raise UnreadableMedia(f"{path} is not readable media ({_reason(error)}); check or re-encode it") from error


class _TooLate(Exception):
    """What was sought lies before the first frame that could be decoded."""


class _Reader:
    def __init__(
        self,
        path: Path,
        see: Callable | None,
        glance: Callable | None,
        sound: bool,
        wanted: StreamChoice,
        frame_rate: int = FRAMES_PER_SECOND,
        fine_rate: int | None = None,
    ):
        self.path, self.see, self.glance = path, see, glance
        self.frame_rate, self.fine_rate = frame_rate, fine_rate
        self.container = _open(path)
        try:
            chosen = choose_streams(self.container, path, wanted, picture=see is not None, sound=sound)
        except Exception:
            self.container.close()
            raise
        self.taken = [
            stream.index for stream in (chosen.picture if see else None, chosen.sound if sound else None) if stream
        ]
        self.watched = [stream.index for stream in (chosen.picture, chosen.sound) if stream]
        self.told = chosen.told
        self.format = self.container.format.name
        self.origin = (self.container.start_time or 0) / av.time_base
        self.size = path.stat().st_size
        self.duration = self._duration()
        self.missing = breaks_off(path, self.format)
        self.lead = _LEAD
        self.seeks = True
        self._use()

    def _duration(self) -> float | None:
        """Seconds that the file says it lasts from its first frame, at least."""
        if self.container.duration is None or self.format in _GUESSED:
            return None
        seconds = self.container.duration / av.time_base
        if self.format in LEAPING and self.size < _LEAST_BYTES * seconds:
            return None
        counted = any(name in _FROM_ZERO for name in self.format.split(","))
        return seconds - max(0.0, self.origin) if counted else seconds

    def _use(self) -> None:
        """Make ready to decode the tracks of the container, which may have been opened anew."""
        streams = self.container.streams
        self.decoded = [streams[index] for index in self.taken]
        self.demuxed = [streams[index] for index in self.watched] if self.format in JOINABLE else self.decoded
        self.picture = next((stream for stream in self.decoded if stream.type == "video"), None)
        self.sound = next((stream for stream in self.decoded if stream.type == "audio"), None)
        self.fresh = True
        self.in_order_of_decoding = self.format == "avi"  # its stamps
        if self.picture:
            codec = self.picture.codec_context
            if codec.width * codec.height <= _SMALL_PICTURE:
                codec.thread_count = 1
            codec.thread_type = "SLICE"  # frame threads delay the first frames and gain nothing on short spans
            self.pixel = pixel_width(self.picture)
            self.tick = float(self.picture.time_base)
            self.shown = 1 / float(self.picture.average_rate) if self.picture.average_rate else 0.0

    def groups(self, spans: Iterable[Span]) -> list[list[tuple[int, Span]]]:
        """Spans in time order, split where the gap to the next one is worth a seek. Where time stamps begin anew
        nothing can be sought, and all are one group."""
        groups: list[list[tuple[int, Span]]] = []
        reached = -math.inf
        for index, span in sorted(enumerate(spans), key=lambda item: (item[1].start, item[1].end)):
            if not groups or span.start - reached > SEEK_GAP:
                groups.append([])
            groups[-1].append((index, span))
            reached = max(reached, span.end)
        far = any(group[0][1].start > SEEK_GAP for group in groups)
        if far and self.decoded and self.format in JOINABLE and is_joined(self.path, tuple(self.watched)):
            self.seeks, self.duration = False, None
            return [[entry for group in groups for entry in group]]
        return groups

    def read(self, group: list[tuple[int, Span]]) -> Iterator[tuple[int, Excerpt]]:
        """Excerpts of a group of neighbouring spans."""
        start, lead = group[0][1].start, self.lead
        for landing in count():
            self._begin(max(0.0, start - lead) if self.seeks and start > SEEK_GAP else 0.0)
            try:
                yield from self._read([Gathering(*entry, self.fine_rate) for entry in group], landing)
            except _TooLate:  # before anything was yielded
                lead *= _FURTHER
                continue
            if self.position > 0:
                self.lead = lead
            return

    def _begin(self, position: float) -> None:
        """Go to a place of the file, in seconds; 0 is its first byte."""
        self.position = position
        if position > 0:
            try:
                self.container.seek(round((position + self.origin) * av.time_base))
                self.fresh = False
            except av.error.FFmpegError:
                self.position = 0.0  # what cannot be sought is read from its start
        if self.position == 0 and not self.fresh:
            self.container.close()
            self.container = _open(self.path)
            self._use()
        self.last_slot, self.last_time, self.seen_until = -1, -math.inf, -math.inf
        self.corrupt = False  # the last picture was not decoded as a whole
        self.resampled = SoundTrack(self.format in _COUNTED)
        self.finer = SoundTrack(self.format in _COUNTED, self.fine_rate) if self.fine_rate else None
        self.at = 0  # byte of the last packet that was read
        self.clock = Clock(self.format in LEAPING)
        self.earliest: dict[object, float] = {}
        self.order: list[float] = []

    def _read(self, waiting: list[Gathering], landing: int) -> Iterator[tuple[int, Excerpt]]:
        start, last = waiting[0].span.start, max(gathering.span.end for gathering in waiting)
        reached = dict.fromkeys(self.decoded, -math.inf)
        damaged = False
        for stream, frame, time in self._frames(reached) if self.decoded else ():
            if frame is None:
                damaged = True
                continue
            if reached[stream] == -math.inf:
                self._refuse_late(stream, time, start, landing)
            try:
                reached[stream] = self._take(stream, frame, time, waiting)
            except av.error.FFmpegError:  # a damaged frame of a form that cannot be converted
                damaged = True
                continue
            passed = min(reached.values()) - _GOES_ON
            while waiting and passed >= waiting[0].span.end:
                waiting[0].excerpt.goes_on = True
                yield self._finished(waiting.pop(0))
            if passed >= last:
                break
        for stream in self.decoded:
            if reached[stream] == -math.inf:
                self._refuse_late(stream, math.inf, start, landing)
        self._take_sound(self.resampled.rest(), waiting)
        if self.finer:
            self._take_sound(self.finer.rest(), waiting, self.finer.rate)
        if self.sound and reached[self.sound] > -math.inf:
            reached[self.sound] = self.resampled.end
        end = max(*reached.values(), self.seen_until) if reached else math.inf
        for gathering in waiting:
            whole = self._reaches(end, gathering.span.end) and not (self.corrupt and gathering.span.end > end)
            gathering.excerpt.complete = whole and not damaged
            yield self._finished(gathering)

    def _refuse_late(self, stream: object, time: float, start: float, landing: int) -> None:
        """Raises `_TooLate` where the first frame of a stream comes after what is wanted, and an earlier one may be
        had: the decoder passed packets over, or the seek led behind."""
        if self.position == 0 or time <= start:
            return
        earliest = self.earliest.get(stream, math.inf)
        if earliest < time - _BETWEEN or (landing < _LANDINGS and earliest > start):
            raise _TooLate

    def _reaches(self, end: float, wanted: float) -> bool:
        """Whether a file whose last frame ends at `end` holds all that it says it does up to `wanted`."""
        if end >= wanted:
            return True
        unread = self.size - self.at if self.format in JOINABLE else 0
        if not self.missing and unread > max(_UNREAD * self.size, 1 << 16):
            self.missing = f"its last {unread:,} bytes hold nothing that belongs to the tracks before"
        if self.missing or self.duration is None or self.clock.joints:
            return not self.missing
        return end >= min(wanted, self.duration) - min(_CUT_SHORT, max(_SHORTEST_CUT, _CUT_SHORT * self.duration / 10))

    def _finished(self, gathering: Gathering) -> tuple[int, Excerpt]:
        excerpt = gathering.excerpt
        excerpt.read, excerpt.streams = bool(self.decoded), self.told
        excerpt.file_seconds = None if self.clock.joints else self.duration
        if not excerpt.complete:
            excerpt.missing = self.missing
        joints = [joint - self.origin for joint in self.clock.joints if joint - self.origin < gathering.span.end]
        if joints:
            excerpt.notes.append(("joined", f"at {', '.join(f'{joint:.1f}' for joint in joints)} s"))
        return gathering.finish(self.sound is not None)

    def _frames(self, reached: dict) -> Iterator[tuple]:
        """Decoded frames in file order and their times from the file's start; `(None, None, 0)` stands for data that
        could not be decoded."""
        packets = self.container.demux(self.demuxed)
        self.fresh = False
        while True:
            packet = None
            try:
                packet = next(packets)
                self.clock.follow(packet)
                self.at = packet.pos or self.at
                stream = packet.stream
                if stream not in reached or (packet.dts is not None and not packet.size):  # a frame left out in AVI
                    continue
                before = reached[stream] == -math.inf
                if before or packet.pts is None or self.in_order_of_decoding:
                    self._note(packet, before)
                frames = packet.decode()
            except StopIteration:
                return
            except av.error.EOFError:
                continue
            except av.error.InvalidDataError:
                # behind a seek a decoder meets packets whose references it never saw
                if packet is None or self.position == 0 or reached[packet.stream] > -math.inf:
                    yield None, None, 0.0
                continue
            except av.error.FFmpegError:
                yield None, None, 0.0
                return
            for frame in frames:
                time = frame.time
                if stream is self.picture and self.order:
                    time = heapq.heappop(self.order)
                if time is not None:
                    yield stream, frame, time - self.origin

    def _note(self, packet: av.Packet, before: bool) -> None:
        """Keep what a packet's stamps say. before: none of its stream's frames was decoded yet."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return
        stream = packet.stream
        unordered = stream is self.picture and (packet.pts is None or self.in_order_of_decoding)
        if unordered:
            # stamps in the order of decoding: the pictures, as they come out, have the same ones in order
            heapq.heappush(self.order, float((packet.pts if packet.dts is None else packet.dts) * packet.time_base))
        if before:
            time = float(stamp * packet.time_base) - self.origin
            self.earliest[stream] = min(time, self.earliest.get(stream, math.inf))

    def _take(self, stream, frame, time: float, waiting: list[Gathering]) -> float:
        """Hand a frame to the spans that want it; returns the time up to which its stream has been read."""
        if stream is self.sound:
            if self.finer:  # first, as a resampler may refuse a frame that another took
                self._take_sound(self.finer.take(frame, time), waiting, self.finer.rate)
            self._take_sound(self.resampled.take(frame, time), waiting)
            return self.resampled.end
        slot = math.floor(time * self.frame_rate + 1e-4)
        wanting = [g for g in _begun(waiting, time) if time < g.span.end]
        if wanting and slot > self.last_slot:
            self.last_slot = slot
            row = self.see(Frame(frame, time, self.pixel))
            for gathering in wanting:
                gathering.add_frame(time, row)
        elif wanting and self.glance:
            self.glance(Frame(frame, time, self.pixel))
        since = time - self.last_time if time - self.last_time < _LONGEST_SHOWN else 0.0
        shown = frame.duration * self.tick or max(self.shown, since)
        self.last_time, self.seen_until, self.corrupt = time, max(self.seen_until, time + shown), frame.is_corrupt
        for gathering in wanting:
            gathering.show_until(time + shown)
        return time

    def _take_sound(
        self, pieces: Iterable[tuple[int, np.ndarray]], waiting: list[Gathering], rate: int = SAMPLE_RATE
    ) -> None:
        for first, samples in pieces:
            for gathering in _begun(waiting, (first + samples.shape[1]) / rate):
                gathering.add_sound(first, samples, rate)


def _begun(waiting: list[Gathering], time: float) -> Iterator[Gathering]:
    """Those whose span begins at `time` or before; they are in order of their start, and a long film has thousands that
    come later."""
    return takewhile(lambda gathering: gathering.span.start <= time, waiting)


class Frame:
    """A decoded frame at `time`, seconds from the file's start, converted only as far as it is looked at.

    pixel: width of a pixel beside its height, by which anamorphic pictures are unsqueezed.
    """

    def __init__(self, frame: av.VideoFrame, time: float, pixel: float = 1.0):
        self._frame, self.time, self._pixel = frame, time, pixel

    def picture(self) -> np.ndarray:
        """[height, width, 3] uint8 BGR, upright, its longest side at most 640, scaled and converted in one step."""
        return self._convert("bgr24")

    def grey(self) -> np.ndarray:
        """[height, width] uint8, of the size of `picture`."""
        return self._convert("gray")

    def _convert(self, format: str) -> np.ndarray:
        frame = self._frame
        width, height = frame.width * max(1.0, self._pixel), frame.height * max(1.0, 1 / self._pixel)
        scale = min(1.0, LONGEST_SIDE / max(width, height))
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        picture = frame.to_ndarray(format=format, width=width, height=height, threads=1)
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

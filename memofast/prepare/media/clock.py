"""Time stamps that begin anew within a file, as in recordings that were joined, brought onto one clock."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av

# containers without an index, into which recordings are joined byte by byte
JOINABLE = {"mpegts", "mpeg", "flv", "ogg"}
LEAPING = {"mpegts", "mpeg"}  # of these, containers whose standard lets time stamps leap ahead as well
_BACK = 0.5  # seconds; smaller steps back are a writer's rounding
_AHEAD = 10.0  # seconds; what ffmpeg takes for a leap


@dataclass
class _Track:
    numerator: int  # of the unit of its stamps, in seconds
    denominator: int
    part: int = 0
    last: float | None = None  # seconds, as stamped for the decoder
    step: float = 0.0
    end: float = 0.0  # of what is shown or heard


class Clock:
    """Moves the stamps of packets, so that a recording follows the one before. All tracks of a part move alike.

    leaps: whether steps ahead of more than ten seconds, of all tracks together, are taken for a new recording too.
    """

    def __init__(self, leaps: bool):
        self._leaps = leaps
        self._tracks: dict[int, _Track] = {}
        self.shifts = [0.0]  # seconds by which stamps of each part move
        self.joints: list[float] = []  # where parts begin, on the one clock

    @property
    def end(self) -> float | None:
        """When the last part ends, on the one clock; None before any packet with stamps."""
        part = len(self.shifts) - 1
        ends = [track.end for track in self._tracks.values() if track.part == part and track.last is not None]
        return self.shifts[part] + max(ends) if ends else None

    def follow(self, packet: av.Packet) -> None:
        """Move the stamps of a packet of the file, given in the file's order."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return
        track = self._tracks.get(packet.stream_index)
        if track is None:
            track = self._tracks[packet.stream_index] = _Track(*packet.time_base.as_integer_ratio())
        time = stamp * track.numerator / track.denominator
        pts, duration = packet.pts, packet.duration
        shown = time if pts is None else pts * track.numerator / track.denominator
        if track.last is not None and self._begins_anew(track, time):
            track.part += 1
            if track.part == len(self.shifts):
                self.joints.append(self._end(track))
                self.shifts.append(self.joints[-1] - shown)
            track.last = None
        if duration:
            track.step = duration * track.numerator / track.denominator
        elif track.last is not None:
            track.step = max(0.0, time - track.last)
        track.end = shown + track.step if track.last is None else max(track.end, shown + track.step)
        track.last = time
        if shift := self.shifts[track.part]:
            moved = round(shift * track.denominator / track.numerator)
            packet.pts = None if pts is None else pts + moved
            packet.dts = None if packet.dts is None else packet.dts + moved

    def _begins_anew(self, track: _Track, time: float) -> bool:
        if time < track.last - _BACK:
            return True
        if not self._leaps or time < track.last + _AHEAD:
            return False
        if track.part + 1 < len(self.shifts):
            return True  # another track leapt before it
        latest = max(other.last for other in self._tracks.values() if other.part == track.part)
        return time > latest + _AHEAD

    def _end(self, first: _Track) -> float:
        """When the part that ends was over, on the one clock. Tracks that have not yet begun the next part still have a
        packet to come."""
        part = first.part - 1
        ends = [
            track.end + (0.0 if track is first else track.step)
            for track in self._tracks.values()
            if track.last is not None and (track is first or track.part == part)
        ]
        return self.shifts[part] + max(ends)


def is_joined(path: Path, tracks: tuple[int, ...]) -> bool:
    """Whether time stamps of these tracks begin anew anywhere in a file without an index, whose packets are read once
    for it."""
    return len(_read_through(path, tracks).shifts) > 1


def end_of(path: Path, tracks: tuple[int, ...]) -> float | None:
    """When the last of these tracks ends in a file without an index, in seconds on the one clock; None where nothing
    has a time."""
    return _read_through(path, tracks).end


def _read_through(path: Path, tracks: tuple[int, ...]) -> Clock:
    stat = path.stat()
    return _clock_of(path, tracks, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _clock_of(path: Path, tracks: tuple[int, ...], size: int, changed: int) -> Clock:
    with av.open(str(path), metadata_errors="ignore") as container:
        clock = Clock(container.format.name in LEAPING)
        try:
            for packet in container.demux([container.streams[track] for track in tracks]):
                clock.follow(packet)
        except av.error.FFmpegError:
            pass  # decoding tells of it
        return clock

"""Which tracks of a file are read: those that were asked for, else the film and what is spoken in it."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from memofast.errors import MemofastError
from memofast.prepare.media.excerpts import UnreadableMedia

QUIET = 1e-3  # a sound that never exceeds this (-60 dB of full scale) is silence
_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
_ASIDE = (
    Disposition.comment
    | Disposition.lyrics
    | Disposition.karaoke
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.descriptions
    | Disposition.dependent
)
_ASIDE_TITLE = re.compile(
    r"comment|kommentar|comentario|коммент|解说|解說|评论|評論|解説|descri(ption|ptive|bed)|\bAD\b|karaoke|instrumental"
    r"|isolated|music only|music and effects|\bM&E\b",
    re.IGNORECASE,
)
_STILLS = {"mjpeg", "png", "bmp", "gif", "tiff", "webp", "jpeg2000", "ppm", "targa"}
_ASIDE_PICTURE = Disposition.still_image | Disposition.dependent
_WIDEST_PIXEL = 4.0  # what is further from a square is a wrong number
_LISTENED = (0.0, 0.15, 0.35, 0.55, 0.75, 0.95)  # places in a file, as shares of its length
_SECONDS = 3.0  # heard at each


@dataclass(frozen=True)
class StreamChoice:
    """Which track of a kind is read: its number among them, from 1, or its language as the file names it (`eng`). None:
    the default one that is neither a thumbnail, commentary, nor silent beside one that sounds."""

    picture: str | None = None
    sound: str | None = None


ANY_STREAM = StreamChoice()


def chosen_tracks(picture: str | None, sound: str | None) -> StreamChoice:
    """What `--video-stream` and `--audio-stream` name. Raises: `MemofastError` as `parse_track`."""
    return StreamChoice(parse_track(picture, "--video-stream"), parse_track(sound, "--audio-stream"))


def parse_track(given: str | None, option: str) -> str | None:
    """A track as an option names it. Raises: `MemofastError` for what is neither a number from 1 nor a language."""
    if given is None or re.fullmatch(r"[1-9]\d{0,3}|[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", given):
        return given
    raise MemofastError(f"{option} is a number from 1 or a language as the file names it (eng), not {given!r}")


@dataclass(frozen=True)
class Chosen:
    """Tracks of either kind, None where there is none; told: which were taken, where it is not plain."""

    picture: av.VideoStream | None
    sound: av.AudioStream | None
    told: str


def choose_streams(
    container: av.container.InputContainer, path: Path, wanted: StreamChoice, *, picture: bool, sound: bool
) -> Chosen:
    """The tracks of an open file; what was wanted holds for the kinds that are going to be read.

    Raises: `UnreadableMedia` where it holds neither picture nor sound, `MemofastError` where it lacks the track that
    was asked for.
    """
    tracks = [*container.streams.video, *container.streams.audio]
    pictures = [s for s in container.streams.video if s.codec_context and not s.disposition & _COVERS]
    sounds = [s for s in container.streams.audio if s.codec_context]
    if not pictures and not sounds:
        if any(track.codec_context is None for track in tracks):
            raise UnreadableMedia(f"{path}: nothing here decodes its tracks; re-encode it")
        raise UnreadableMedia(f"{path} holds neither picture nor sound; leave it out")
    pictures, sounds = (
        _Tracks("picture", pictures, wanted.picture if picture else None, path),
        _Tracks("sound", sounds, wanted.sound if sound else None, path),
    )
    seen = pictures.one(_rank_of_picture)
    heard = sounds.one(_rank_of_sound(_silent(path, sounds.asked()) if sound else frozenset()))
    told = [pictures.told(seen)] if picture else []
    if picture and seen and (ratio := pixel_width(seen)) != 1:
        told.append(f"the picture is unsqueezed, its pixels are {ratio:.3g} times as wide as high")
    told += [sounds.told(heard)] if sound else []
    return Chosen(seen, heard, "; ".join(filter(None, told)))


@dataclass(frozen=True)
class _Tracks:
    """The tracks of one kind, and which was asked for."""

    kind: str
    tracks: list
    wanted: str | None
    path: Path

    def asked(self) -> list:
        """Those that answer to what was asked for. Raises: `MemofastError` where none does."""
        if self.wanted is None:
            return self.tracks
        if self.wanted.isdigit():
            found = self.tracks[int(self.wanted) - 1 : int(self.wanted)]
        else:
            found = [track for track in self.tracks if (track.language or "").lower() == self.wanted.lower()]
        if not found:
            there = "; ".join(f"{number}: {_named(track)}" for number, track in enumerate(self.tracks, 1)) or "none"
            raise MemofastError(f"{self.path} has no {self.kind} track {self.wanted!r}, but {there}; name one of them")
        return found

    def one(self, rank: Callable) -> "av.stream.Stream | None":
        return min(self.asked(), key=rank, default=None)

    def told(self, taken) -> str:
        """Which track was taken and which were not; "" where there is but one."""
        if len(self.tracks) < 2:
            return ""
        number = self.tracks.index(taken) + 1
        others = ", ".join(f"{n} ({_named(track)})" for n, track in enumerate(self.tracks, 1) if n != number)
        return f"{self.kind} track {number} ({_named(taken)}) is read, not {others}"


def pixel_width(stream: av.VideoStream) -> float:
    """How wide a pixel of a picture is, beside its height; 1 where the file says nothing sensible."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 1 / _WIDEST_PIXEL <= ratio <= _WIDEST_PIXEL else 1.0


def _named(stream) -> str:
    """Language, title, codec and marks of a track."""
    marks = [mark.name for mark in Disposition if mark & stream.disposition and mark.name]
    known = [stream.language, stream.metadata.get("title"), stream.codec_context.name, *marks]
    if stream.type == "video":
        known.append(f"{stream.codec_context.width}x{stream.codec_context.height}")
    return " ".join(part for part in known if part and part != "und")


def _rank_of_picture(track: av.VideoStream) -> tuple:
    codec = track.codec_context
    still = codec.name in _STILLS or track.frames == 1 or bool(track.disposition & _ASIDE_PICTURE)
    return still, not track.disposition & Disposition.default, -codec.width * codec.height, track.index


def _rank_of_sound(silent: Collection[int]) -> Callable:
    def rank(track: av.AudioStream) -> tuple:
        aside = bool(track.disposition & _ASIDE) or bool(_ASIDE_TITLE.search(track.metadata.get("title", "")))
        return track.index in silent, aside, not track.disposition & Disposition.default, track.index

    return rank


def _silent(path: Path, tracks: list) -> frozenset[int]:
    """Indices of the tracks in which nothing is heard, where there are several."""
    if len(tracks) < 2:
        return frozenset()
    stat = path.stat()
    peaks = _loudest(path, tuple(track.index for track in tracks), stat.st_size, stat.st_mtime_ns)
    return frozenset(index for index, peak in peaks.items() if peak < QUIET)


@lru_cache(maxsize=64)
def _loudest(path: Path, indices: tuple[int, ...], size: int, changed: int) -> dict[int, float]:
    """Peak of each track at some places of the file, no longer looked for once all of them sound."""
    peaks = dict.fromkeys(indices, 0.0)
    with av.open(str(path), metadata_errors="ignore") as container:
        streams = [container.streams[index] for index in indices]
        length, origin = container.duration or 0, container.start_time or 0
        for share in _LISTENED:
            if all(peak >= QUIET for peak in peaks.values()) or (share and not length):
                break
            try:
                if share:
                    container.seek(origin + round(share * length))
                _listen(container, streams, peaks)
            except av.error.FFmpegError:
                continue  # decoding tells of it
    return peaks


def _listen(container: av.container.InputContainer, streams: list, peaks: dict[int, float]) -> None:
    heard = dict.fromkeys(peaks, 0.0)
    for packet in container.demux(streams):
        index = packet.stream_index
        try:
            for frame in packet.decode():
                peaks[index] = max(peaks[index], _peak(frame))
                heard[index] += frame.samples / frame.sample_rate
        except av.error.FFmpegError:
            continue
        if min(heard.values()) >= _SECONDS or max(heard.values()) >= 4 * _SECONDS:
            return


def _peak(frame: av.AudioFrame) -> float:
    """Of full scale 1."""
    samples = frame.to_ndarray()
    if samples.dtype == np.uint8:
        return float(np.abs(samples.astype(np.float32) - 128).max(initial=0.0)) / 128
    scale = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
    return float(np.abs(samples.astype(np.float32)).max(initial=0.0)) / scale

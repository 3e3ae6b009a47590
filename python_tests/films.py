"""Films of any container, codec and number of tracks, made on the spot: pictures that carry their number, and tones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from memofast.prepare.media.excerpts import SAMPLE_RATE

_CELL = 16  # pixels


@dataclass
class Picture:
    """A picture track, its frames numbered from `first` in 16 black or white squares, with noise around them."""

    seconds: float = 3.0
    codec: str = "libx264"
    rate: int = 10
    first: int = 0
    size: tuple[int, int] = (64, 64)
    gop: int = 10
    b_frames: int = 0
    marks: Disposition | None = None
    title: str = ""
    options: dict = field(default_factory=dict)
    pixel: str | None = None  # its width beside its height, as `16/11`


@dataclass
class Tone:
    """A sound track: a sine after `quiet` seconds."""

    hz: float = 500.0
    seconds: float = 3.0
    codec: str = "aac"
    rate: int = 44_100
    layout: str = "mono"
    level: float = 0.3
    quiet: float = 0.0
    marks: Disposition | None = None
    title: str = ""
    language: str = ""


def write_film(path: Path, *tracks: Picture | Tone, format: str | None = None, start: float = 0.0, **options) -> Path:
    """A file of these tracks, interleaved, whose time stamps begin at `start` seconds."""
    options = {name: str(value) for name, value in options.items()}
    if start:
        options["output_ts_offset"] = str(start)
    with av.open(str(path), "w", format=format, options=options) as container:
        packets = []
        for track in tracks:
            stream = _stream(container, track)
            frames = _pictures(track) if isinstance(track, Picture) else _sounds(track)
            for time, frame in [*frames, (track.seconds, None)]:
                packets += [(time, packet) for packet in stream.encode(frame)]
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            container.mux(packet)
    return path


def _stream(container, track: Picture | Tone):
    if isinstance(track, Picture):
        stream = container.add_stream(track.codec, rate=track.rate)
        stream.width, stream.height = track.size
        stream.pix_fmt = "yuvj420p" if track.codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = track.gop, track.b_frames
        stream.options = track.options | ({"sc_threshold": "0"} if track.codec == "libx264" else {})
        if track.pixel:
            stream.codec_context.sample_aspect_ratio = Fraction(track.pixel)
    else:
        stream = container.add_stream(track.codec, rate=track.rate, layout=track.layout)
        if track.language:
            stream.metadata["language"] = track.language
    if track.title:
        stream.metadata["title"] = track.title
    if track.marks is not None:
        stream.disposition = track.marks
    return stream


def _pictures(track: Picture) -> Iterator[tuple[float, av.VideoFrame]]:
    noise = np.random.default_rng(track.first)
    for number in range(round(track.seconds * track.rate)):
        bits = [(track.first + number) >> place & 1 for place in range(16)]
        squares = np.kron(np.array(bits, np.uint8).reshape(4, 4) * 255, np.ones((_CELL, _CELL), np.uint8))
        image = noise.integers(0, 255, (track.size[1], track.size[0], 3), np.uint8)
        image[: 4 * _CELL, : 4 * _CELL] = squares[: track.size[1], : track.size[0], None]
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number
        yield number / track.rate, frame


def _sounds(track: Tone) -> Iterator[tuple[float, av.AudioFrame]]:
    time = np.arange(round(track.seconds * track.rate)) / track.rate
    wave = (track.level * (time >= track.quiet) * np.sin(2 * np.pi * track.hz * time)).astype(np.float32)
    channels = 2 if track.layout == "stereo" else 1
    for first in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(np.tile(wave[first : first + 1024], (channels, 1)), "fltp", track.layout)
        frame.sample_rate, frame.pts = track.rate, first
        yield first / track.rate, frame


def number(frame) -> int:
    """The number that a picture carries."""
    grey = frame.grey()
    return sum(1 << i for i in range(16) if grey[i // 4 * _CELL + 8, i % 4 * _CELL + 8] > 128)


def pitch(sound: np.ndarray) -> float:
    """Hz of the strongest tone in sound at 16 kHz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(sound))

"""Small clips made on the spot: a moving picture and a sine."""

from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path,
    seconds: float = 1.0,
    *,
    rate: int = 25,
    picture: bool = True,
    sound: bool = True,
    level: float = 0.3,
    quiet: float = 0.0,
    codec: str = "aac",
    size: tuple[int, int] = (96, 80),
    picture_codec: str = "mpeg4",
) -> Path:
    """A clip whose picture brightens by one grey value per frame (from 40) and whose sound is 440 Hz at 44.1 kHz
    stereo, after `quiet` seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(picture_codec, rate=rate) if picture else None
        audio = container.add_stream(codec, rate=44_100, layout="stereo") if sound else None
        if video:
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            video.bit_rate = 2_000_000
            for number in range(round(seconds * rate)):
                image = np.full((size[1], size[0], 3), 40 + number % 200, np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
        if audio:
            time = np.arange(round(seconds * 44_100)) / 44_100
            wave = (level * (time >= quiet) * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
            for first in range(0, len(wave), 1024):
                piece = np.tile(wave[first : first + 1024], (2, 1))
                if codec == "aac":
                    frame = av.AudioFrame.from_ndarray(piece, "fltp", "stereo")
                else:
                    frame = av.AudioFrame.from_ndarray(
                        (piece.T.reshape(1, -1) * 32767).astype(np.int16), "s16", "stereo"
                    )
                frame.sample_rate, frame.pts = 44_100, first
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path

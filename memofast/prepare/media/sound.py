"""Decoded sound of any rate and layout, resampled to one rate and placed by its time stamps."""

from collections.abc import Iterator

import av
import numpy as np

from memofast.prepare.media.excerpts import SAMPLE_RATE

_GAP = 0.1  # seconds by which time stamps may drift before they are believed over the sample count


class SoundTrack:
    """Takes frames one by one; rate, layout and format may change between any two of them.

    counted: time stamps say no more than that frames follow each other, and only the first is believed. rate: of the
    samples that it gives.
    """

    def __init__(self, counted: bool = False, rate: int = SAMPLE_RATE):
        self._counted, self.rate = counted, rate
        self._resampler: av.AudioResampler | None = None
        self._channels = 1
        self._form = ("", "", 0)
        self._next = 0

    @property
    def end(self) -> float:
        """Seconds from the file's start up to which there are samples."""
        return self._next / self.rate

    def take(self, frame: av.AudioFrame, time: float) -> Iterator[tuple[int, np.ndarray]]:
        """Samples [1 or 2, n] float32 that are ready, and which of the file's the first is.

        Args: time: of the frame, in seconds from the file's start.
        """
        begins = self._resampler is None
        if begins or not self._fits(frame):
            yield from self.rest()
            self._form = frame.format.name, frame.layout.name, frame.sample_rate
            self._resampler, self._channels = _resampler(frame, self.rate)
        at = round(time * self.rate)
        if begins or (not self._counted and abs(at - self._next) > _GAP * self.rate):
            self._next = at
        yield from self._resampled(frame)

    def rest(self) -> Iterator[tuple[int, np.ndarray]]:
        """What the resampler still holds."""
        if self._resampler is not None:
            yield from self._resampled(None)

    def _fits(self, frame: av.AudioFrame) -> bool:
        name, layout, rate = self._form
        return frame.sample_rate == rate and frame.format.name == name and frame.layout.name == layout

    def _resampled(self, frame: av.AudioFrame | None) -> Iterator[tuple[int, np.ndarray]]:
        try:
            pieces = self._resampler.resample(frame)
        except av.error.FFmpegError:  # which is of no use any more
            self._resampler = None
            raise
        for piece in pieces:
            count = piece.samples * self._channels
            samples = np.frombuffer(piece.planes[0], np.float32, count)  # `to_ndarray` takes ten times as long
            yield self._next, samples.reshape(-1, self._channels).T
            self._next += piece.samples


def _resampler(frame: av.AudioFrame, rate: int) -> tuple[av.AudioResampler, int]:
    """To so many channels: one, or two of which the mean is taken later, where it can be seen whether they cancel each
    other."""
    count = frame.layout.nb_channels
    # more channels than two are weighted so that their sum stays within full scale
    options = {"rematrix_maxval": "1.0"} if count > 2 else None
    layout = "mono" if count == 1 else "stereo"
    resampler = av.AudioResampler(format="flt", layout=layout, rate=rate, options=options)
    return resampler, min(count, 2)

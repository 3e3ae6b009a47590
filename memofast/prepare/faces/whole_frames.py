"""Whole pictures as rows, for a network that looks at more than faces and is trained along."""

import numpy as np

from memofast.prepare.faces.detection import load_opencv

RATE = 25  # pictures a second; each stands for as long as it is seen
SIDES = (16, 512)


class WholeFrames:
    """Pictures, cut to their middle square and scaled, as rows [n, 3 side side] uint8: red, green and blue of a pixel,
    pixels line by line."""

    dtype, normalisation, colour, classes, labeller = "uint8", "none", False, (), {}

    def __init__(self, side: int):
        self.side, self.width, self.name = side, 3 * side * side, f"frames side {side}"
        self.fingerprint = f"frames-1-{RATE}-side-{side}"
        self._cv2 = load_opencv()

    def look(self, picture: np.ndarray) -> np.ndarray:
        """[height, width, 3] uint8 BGR -> [side, side, 3] uint8 RGB."""
        height, width = picture.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = picture[top : top + side, left : left + side]
        shrinks = side > self.side
        scaled = self._cv2.resize(
            square, (self.side, self.side), interpolation=self._cv2.INTER_AREA if shrinks else self._cv2.INTER_LINEAR
        )
        return self._cv2.cvtColor(scaled, self._cv2.COLOR_BGR2RGB)


def evenly_timed(times: list[float], end: float) -> np.ndarray:
    """Which of the frames, shown from `times` [n] seconds on, is seen in the middle of each of the 25ths of a second
    before `end`; the first also before it."""
    middles = (np.arange(max(1, round(end * RATE))) + 0.5) / RATE
    return np.clip(np.searchsorted(np.array(times), middles + 1e-4, side="right") - 1, 0, None)

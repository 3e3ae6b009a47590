"""What the mouths of seen faces do between the kept frames: opening and motion at the film's own frame rate.

A face is found ten times a second; on the frames between, its mouth is cut out where the eyes last were, from the grey
picture alone.
"""

import numpy as np

from memofast.prepare.faces.detection import Face, align, load_opencv

_MOUTH = (slice(42, 62), slice(18, 46))  # of the aligned 64 x 64 crop
_BROW = (slice(4, 30), slice(0, 64))  # moves with the head, not with speech
_DARKEST = 0.1


class MouthWatch:
    """Fills `Face.mouth` of the faces that were seen last, frame by frame."""

    def __init__(self):
        self._cv2 = load_opencv()
        self._watched: list[tuple[Face, np.ndarray, float]] = []

    def glance(self, grey: np.ndarray, time: float) -> None:
        """Look at a frame [height, width] uint8 at `time` seconds that is not searched for faces."""
        self._watched = [(face, self._sample(face, grey, time, last), time) for face, *last in self._watched]

    def see(self, faces: list[Face], grey: np.ndarray, time: float) -> None:
        """Look at a frame in which `faces` were found; the step to it still belongs to the faces before."""
        for face, *last in self._watched:
            self._step(face, self._cut(face, grey), time, last)
        self._watched = [(face, self._sample(face, grey, time, None), time) for face in faces]

    def _cut(self, face: Face, grey: np.ndarray) -> np.ndarray:
        return align(self._cv2, grey, *face.eyes).astype(np.float32)

    def _sample(self, face: Face, grey: np.ndarray, time: float, last: list | None) -> np.ndarray:
        crop = self._cut(face, grey)
        mouth = crop[_MOUTH].ravel()
        darkest = max(1, round(_DARKEST * mouth.size))
        face.mouth.add(time, -float(np.partition(mouth, darkest)[:darkest].mean()), float(mouth.std()))
        if last:
            self._step(face, crop, time, last)
        return crop

    @staticmethod
    def _step(face: Face, crop: np.ndarray, time: float, last: list) -> None:
        before, then = last
        if not 0 < time - then < 0.5:
            return
        changed = np.abs(crop - before)
        face.mouth.add_step(time, float(changed[_MOUTH].mean() - changed[_BROW].mean()) / (25 * (time - then)))

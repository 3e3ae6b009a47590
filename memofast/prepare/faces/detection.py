"""The faces of a picture as grey 64 x 64 crops, in colour and finer too where wanted, turned so that the eyes lie
level."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from memofast.errors import MemofastError
from memofast.files import refuse_pointer

CROP = 64
COLOUR_CROP = (
    128  # as large as most faces in a picture of 640, at a third of the memory of the 224 that models commonly see
)
EYE_HEIGHT = 0.36  # of the crop; with the eye distance below, brows and chin are inside, as in FER2013
EYE_DISTANCE = 0.40
MINIMUM_CONFIDENCE = 0.6
MOST_FACES = 8  # of a crowd
# YuNet's time grows with the area: a picture is searched small, and once more larger where that shows nobody near
# (crops are of the whole picture)
NEAR_SIDE, FAR_SIDE = 320, 480  # pixels
NEAR_SHARE = 0.08  # of the picture's longest side
_INSTALL = 'pip install "memofast[face]"'


@dataclass
class MouthSamples:
    """One entry per frame, ascending in time.

    times: seconds. dark: grey level of the darkest tenth of the mouth's pixels, negated, so that an open mouth is high.
    contrast: their standard deviation. moved: seconds of the end of a step between frames; motion: by how many grey
    levels per 1/25 s the mouth changed more than the brow.
    """

    times: list[float] = field(default_factory=list)
    dark: list[float] = field(default_factory=list)
    contrast: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)

    def add(self, time: float, dark: float, contrast: float) -> None:
        self.times.append(time)
        self.dark.append(dark)
        self.contrast.append(contrast)

    def add_step(self, time: float, motion: float) -> None:
        self.moved.append(time)
        self.motion.append(motion)

    def extend(self, other: "MouthSamples") -> None:
        for name, values in vars(other).items():
            getattr(self, name).extend(values)


@dataclass(frozen=True, eq=False)
class Face:
    """crop [64, 64] uint8 grey, aligned by the eyes; confidence in 0..1 as the detector gives it; box [4]: left, top,
    width and height in pixels.

    eyes: the person's right and left eye, each [2] in pixels. mouth: filled where somebody watches it.
    colour: the same piece of the picture, [128, 128, 3] uint8 RGB; fine: the same, [side, side] uint8 grey, of another
    side than 64; where they were asked for.
    """

    crop: np.ndarray
    confidence: float
    box: np.ndarray
    eyes: tuple[np.ndarray, np.ndarray]
    mouth: MouthSamples = field(default_factory=MouthSamples)
    colour: np.ndarray | None = None
    fine: np.ndarray | None = None


class FaceFinder(Protocol):
    """Called with a picture [height, width, 3] uint8 BGR; gives its faces, at most `MOST_FACES`, the largest and surest
    first."""

    name: str

    def __call__(self, picture: np.ndarray) -> list[Face]: ...


def load_opencv():
    """The `cv2` module, on one thread; raises MemofastError with the install command when it is absent."""
    try:
        import cv2
    except ImportError as error:
        raise MemofastError(f"faces need OpenCV, which is not installed: {_INSTALL}") from error
    cv2.setNumThreads(1)  # files are spread over processes
    return cv2


def check_finder(yunet: Path | None) -> list[str]:
    """Refuse a missing or wrong detector before any work begins; returns a warning where the weaker one will be
    used."""
    find_faces(yunet)
    if yunet is not None:
        return []
    return [
        "no YuNet model: faces are found by the Haar cascade, which misses turned faces; "
        "`memofast download yunet` fetches the better detector, --yunet PATH uses it"
    ]


def find_faces(yunet: Path | None, colour: bool = False, side: int = CROP) -> FaceFinder:
    """YuNet from the ONNX file `yunet`, or OpenCV's Haar cascades where that is None; `colour`: crops in colour too;
    `side`: where it is not 64, grey crops of that side too."""
    return Haar(colour, side) if yunet is None else YuNet(yunet, colour, side)


def main_faces(boxes: np.ndarray, confidences: np.ndarray) -> np.ndarray:
    """Indices of the `MOST_FACES` faces of largest area times confidence: boxes [n, 4] (left, top, width, height),
    confidences [n]."""
    return np.argsort(-boxes[:, 2] * boxes[:, 3] * confidences, kind="stable")[:MOST_FACES]


class YuNet:
    """`cv2.FaceDetectorYN` with the YuNet model of the OpenCV zoo (Wu et al., 2023)."""

    name = "yunet"

    def __init__(self, model: Path, colour: bool = False, side: int = CROP):
        self._cv2, self._asked = load_opencv(), (colour, side)
        if not Path(model).is_file():
            raise MemofastError(f"no YuNet model at {model}; fetch it with `memofast download yunet`")
        refuse_pointer(Path(model))
        try:
            self._net = self._cv2.FaceDetectorYN.create(str(model), "", (320, 320), MINIMUM_CONFIDENCE)
            self._net.setInputSize((64, 64))
            self._net.detect(np.zeros((64, 64, 3), np.uint8))
        except self._cv2.error as error:
            raise MemofastError(
                f"{model} is not a YuNet model that OpenCV can run; fetch one with `memofast download yunet`"
            ) from error

    def __call__(self, picture: np.ndarray) -> list[Face]:
        found = self._search(picture, NEAR_SIDE)
        if max(picture.shape[:2]) > NEAR_SIDE and found[:, 2].max(initial=0) < NEAR_SHARE * max(picture.shape[:2]):
            found = self._search(picture, FAR_SIDE)
        chosen = found[main_faces(found[:, :4], found[:, 14])]
        return [self._face(picture, one.copy()) for one in chosen]

    def _search(self, picture: np.ndarray, side: int) -> np.ndarray:
        """Faces [n, 15] as YuNet describes them, in pixels of the picture, which is searched with its longest side at
        most `side`."""
        scale = min(1.0, side / max(picture.shape[:2]))
        size = tuple(round(length * scale) for length in picture.shape[1::-1])
        self._net.setInputSize(size)
        _, found = self._net.detect(picture if scale == 1 else self._cv2.resize(picture, size))
        if found is None:
            return np.zeros((0, 15), np.float32)
        found[:, :14] /= scale
        return found

    def _face(self, picture: np.ndarray, found: np.ndarray) -> Face:
        return _face(self._cv2, picture, (found[4:6], found[6:8]), float(found[14]), found[:4], *self._asked)


class Haar:
    """OpenCV's own frontal-face and eye cascades; the crop is not turned where two eyes are not found."""

    name = "haar"

    def __init__(self, colour: bool = False, side: int = CROP):
        self._cv2, self._asked = load_opencv(), (colour, side)
        if not hasattr(self._cv2, "CascadeClassifier"):
            raise MemofastError(f"this OpenCV has no Haar cascades (version 5?): {_INSTALL}, or give --yunet PATH")
        folder = Path(self._cv2.data.haarcascades)
        self._faces = self._cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
        self._eyes = self._cv2.CascadeClassifier(str(folder / "haarcascade_eye.xml"))

    def __call__(self, picture: np.ndarray) -> list[Face]:
        grey = self._cv2.cvtColor(picture, self._cv2.COLOR_BGR2GRAY)
        smallest = max(24, min(grey.shape) // 8)
        boxes, _, weights = self._faces.detectMultiScale3(
            grey, 1.1, 5, minSize=(smallest, smallest), outputRejectLevels=True
        )
        if len(boxes) == 0:
            return []
        boxes = boxes.astype(np.float64)
        confidences = 1 / (1 + np.exp(-np.asarray(weights, np.float64).reshape(-1)))
        return [self._face(picture, grey, boxes[n], float(confidences[n])) for n in main_faces(boxes, confidences)]

    def _face(self, picture: np.ndarray, grey: np.ndarray, box: np.ndarray, confidence: float) -> Face:
        left, top, width, height = box.astype(int)
        right_eye, left_eye = self._find_eyes(grey[top : top + height, left : left + width])
        eyes = right_eye + box[:2], left_eye + box[:2]
        return _face(self._cv2, picture, eyes, confidence, box, *self._asked)

    def _find_eyes(self, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the two eyes within the face box; where they usually are when the cascade does not find them."""
        height, width = face.shape
        upper = face[: int(0.6 * height)]
        found = [(x + w / 2, y + h / 2, w) for x, y, w, h in self._eyes.detectMultiScale(upper, 1.1, 5)]
        halves = [[eye for eye in found if (eye[0] < width / 2) == first] for first in (True, False)]
        if all(halves):
            eyes = [np.array(max(half, key=lambda eye: eye[2])[:2]) for half in halves]
            step = eyes[1] - eyes[0]
            if step[0] > 0.25 * width and abs(step[1]) < 0.5 * step[0]:
                return eyes[0], eyes[1]
        return np.array([0.31 * width, 0.39 * height]), np.array([0.69 * width, 0.39 * height])


def _face(cv2, picture: np.ndarray, eyes: tuple, confidence: float, box: np.ndarray, colour: bool, side: int) -> Face:
    larger = align(cv2, picture, *eyes, COLOUR_CROP, True) if colour else None
    fine = align(cv2, picture, *eyes, side) if side != CROP else None
    return Face(align(cv2, picture, *eyes), confidence, box, eyes, colour=larger, fine=fine)


def align(
    cv2, picture: np.ndarray, right_eye: np.ndarray, left_eye: np.ndarray, side: int = CROP, colour: bool = False
) -> np.ndarray:
    """Grey crop [side, side] or colour crop [side, side, 3] RGB, uint8, with the eyes level at fixed places;
    `right_eye` is the person's, left in the picture."""
    step = np.asarray(left_eye, np.float64) - np.asarray(right_eye, np.float64)
    distance = max(math.hypot(*step), 1e-3)
    scale = EYE_DISTANCE * side / distance
    cosine, sine = step / distance * scale
    middle = (np.asarray(left_eye, np.float64) + np.asarray(right_eye, np.float64)) / 2
    turn = np.array([[cosine, sine], [-sine, cosine]])
    shift = np.array([side / 2, EYE_HEIGHT * side]) - turn @ middle
    if scale < 0.5:  # shrinking by more than two would alias
        picture, turn = _halve(cv2, picture, turn, scale)
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB if colour else cv2.COLOR_BGR2GRAY)
    matrix = np.column_stack([turn, shift])
    return cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _halve(cv2, picture: np.ndarray, turn: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    factor = 1 / (2 * scale)
    height, width = picture.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    smaller = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return smaller, turn * np.array([[width / size[0], height / size[1]]])

"""Faces of neighbouring frames as tracks of one person each, and the persons whom a clip shows most."""

from dataclasses import dataclass, field

import numpy as np

from memofast.prepare.faces.detection import Face, load_opencv

LEAST_SHARE = 0.2  # of a clip's frames that its main person is seen in; source: MEmoBERT's longest speaker
_LONGEST_GAP = 5  # frames for which a face may be lost, half a second
_LEAST_LIKENESS = 0.3  # of overlap and appearance together, to be the same face in the next frame
# correlation of mean crops, to be the same person in another shot: reached by 94 % of pairs of clips of one GRID
# speaker, and by 4 % of pairs of different talking heads
SAME_PERSON = 0.8
_CUT = 30.0  # grey levels by which a thumbnail changes between shots
_THUMBNAIL = 16


@dataclass(frozen=True, eq=False)
class Seen:
    """What one kept frame shows. thumbnail: [16, 16] float32 grey."""

    faces: list[Face]
    thumbnail: np.ndarray


@dataclass(eq=False)
class Track:
    """One person. frames: which of the clip's kept frames show them, ascending; faces: their face in each."""

    frames: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)

    def add(self, frame: int, face: Face) -> None:
        self.frames.append(frame)
        self.faces.append(face)

    @property
    def size(self) -> float:
        """Area times confidence, summed over frames."""
        return sum(face.box[2] * face.box[3] * face.confidence for face in self.faces)


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """The picture [height, width, 3] uint8 as `Seen` keeps it."""
    cv2 = load_opencv()
    small = cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)


def shot_cuts(seen: list[Seen]) -> list[int]:
    """Indices of frames that begin a new shot."""
    return [
        number
        for number in range(1, len(seen))
        if np.abs(seen[number].thumbnail - seen[number - 1].thumbnail).mean() > _CUT
    ]


def track_faces(seen: list[Seen]) -> list[Track]:
    """The persons of a clip, the one seen in most frames first; among equals the larger one."""
    cuts, finished, active = set(shot_cuts(seen)), [], []
    for frame, shown in enumerate(seen):
        lost = [t for t in active if frame in cuts or frame - t.frames[-1] > _LONGEST_GAP]
        finished += lost
        active = [track for track in active if track not in lost]
        matched = _assign(active, shown.faces)
        for number, face in enumerate(shown.faces):
            if number not in matched:
                active.append(Track())
                matched[number] = len(active) - 1
            active[matched[number]].add(frame, face)
    persons = _united(sorted(finished + active, key=lambda track: track.frames[0]))
    return sorted(persons, key=lambda track: (-len(track.frames), -track.size))


def main_persons(seen: list[Seen]) -> list[Track]:
    """The persons seen in at least a fifth of the frames, in the order of `track_faces`."""
    return [person for person in track_faces(seen) if len(person.frames) >= LEAST_SHARE * len(seen)]


def _assign(tracks: list[Track], faces: list[Face]) -> dict[int, int]:
    """Face number -> track number, the pairs that are most alike altogether."""
    if not tracks or not faces:
        return {}
    from scipy.optimize import linear_sum_assignment

    likeness = np.array([[_likeness(track.faces[-1], face) for face in faces] for track in tracks])
    pairs = zip(*linear_sum_assignment(-likeness), strict=True)
    return {int(face): int(track) for track, face in pairs if likeness[track, face] >= _LEAST_LIKENESS}


def _likeness(one: Face, other: Face) -> float:
    """Half overlap of boxes, half correlation of crops."""
    return 0.5 * overlap(one.box, other.box) + 0.5 * max(0.0, correlation(one.crop, other.crop))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / max(one[2] * one[3] + other[2] * other[3] - shared, 1e-9))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of the pixels of two crops, -1..1; 0 where one has no contrast."""
    one, other = (values.astype(np.float64) - values.mean() for values in (one, other))
    length = np.sqrt((one * one).sum() * (other * other).sum())
    return float((one * other).sum() / length) if length else 0.0


def _united(tracks: list[Track]) -> list[Track]:
    """Tracks of one person in different shots as one; those seen at the same time are different persons."""
    persons: list[Track] = []
    for track in tracks:
        free = [person for person in persons if not set(person.frames) & set(track.frames)]
        alike, number = max(
            ((correlation(mean_crop(person), mean_crop(track)), n) for n, person in enumerate(free)), default=(0, 0)
        )
        if alike < SAME_PERSON:
            persons.append(track)
        else:
            for frame, face in zip(track.frames, track.faces, strict=True):
                free[number].add(frame, face)
    return persons


def mean_crop(track: Track) -> np.ndarray:
    """[64, 64] float64: the mean of the person's crops."""
    return np.mean([face.crop for face in track.faces], axis=0)

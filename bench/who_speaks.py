"""How well mouths are told from sounds of other clips: `python bench/who_speaks.py VIDEO_FOLDER --yunet FILE`.

Every clip is cut into pieces of a few seconds; pieces with voice activity in at least 30 % and one face are used. Every
mouth is scored beside every sound of its group (a folder given); its own is a match, those of other clips are not.
Printed per group: pieces, the area under the ROC curve of the correlation with its 95 % interval over pieces
(bootstrap), how many mouths count as speaking beside their own sound, and which of two mouths is chosen for a sound.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from memofast.prepare.faces.detection import YuNet
from memofast.prepare.faces.mouths import MouthWatch
from memofast.prepare.faces.speaking import active_speaker, correlation, mouth_of, sound_bands
from memofast.prepare.faces.tracks import Seen, main_persons, thumbnail
from memofast.prepare.media.decoding import SAMPLE_RATE, Span, UnreadableMedia, decode
from memofast.prepare.run.extraction import one_thread
from memofast.prepare.sources.clips import SourceOptions, read_sources
from memofast.prepare.speech.voice import open_voice

LONGEST = 12.0  # seconds used of a clip


def pieces_of(clip, seconds: float, yunet: YuNet, voice) -> list[tuple]:
    """(clip id, person, span, sound, voice activity) of each usable piece."""
    watch = MouthWatch()

    def see(frame):
        seen = Seen(yunet(frame.picture()), thumbnail(frame.picture()))
        watch.see(seen.faces, frame.grey(), frame.time)
        return seen

    spans = [Span(start, start + seconds) for start in np.arange(0.0, LONGEST - seconds + 0.01, seconds)]
    heard = dict(decode(clip.sound, spans, see=None))
    glance = lambda frame: watch.glance(frame.grey(), frame.time)  # noqa: E731
    found = []
    for index, excerpt in decode(clip.picture, spans, see=see, glance=glance, sound=False):
        sound = heard[index].sound
        whole = sound is not None and len(sound) >= 0.95 * seconds * SAMPLE_RATE and len(excerpt.seen) >= 9 * seconds
        persons = main_persons(excerpt.seen)
        if whole and len(persons) == 1 and (spoken := voice(sound)).mean() >= 0.3:
            found.append((clip.id, persons[0], spans[index], sound, spoken))
    return found


def area(table: np.ndarray, names: np.ndarray) -> float:
    other = names[:, None] != names[None]
    own = np.diag(table)
    labels = np.r_[np.ones(len(own)), np.zeros(other.sum())]
    return float(roc_auc_score(labels, np.r_[own, table[other]]))


def interval(table: np.ndarray, names: np.ndarray, draws: int = 500) -> tuple[float, float]:
    """95 % interval of the area over pieces drawn with replacement, copies of a clip never beside each other."""
    random = np.random.default_rng(0)
    areas = []
    for _ in range(draws):
        chosen = random.integers(0, len(names), len(names))
        areas.append(area(table[np.ix_(chosen, chosen)], names[chosen]))
    return float(np.quantile(areas, 0.025)), float(np.quantile(areas, 0.975))


def measure(pieces: list[tuple], voice) -> str:
    mouths = [mouth_of(person, span) for _, person, span, _, _ in pieces]
    bands = [sound_bands(sound) for *_, sound, _ in pieces]
    table = np.array([[correlation(mouth, band) for band in bands] for mouth in mouths], float)
    names = np.array([name for name, *_ in pieces])
    speaking = sum(
        active_speaker([person], span, sound, spoken, voice.hop)[0] is not None
        for _, person, span, sound, spoken in pieces
    )
    other = names[:, None] != names[None]
    better = (np.diag(table)[None] > table)[other].mean()
    low, high = interval(table, names)
    n = len(pieces)
    return (
        f"{n} | {len(set(names))} | {area(table, names):.3f} [{low:.2f}, {high:.2f}] | {better:.3f} | {speaking}/{n} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", help="NAME=FOLDER,FOLDER: clips whose sounds and mouths are paired")
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.9, 5.8])
    arguments = parser.parse_args()
    yunet, voice = YuNet(arguments.yunet), open_voice("silero")
    print("| group | seconds | pieces | clips | ROC area | of two mouths the right one | speaks beside its own sound |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for group in arguments.groups:
        name, _, folders = group.partition("=")
        clips = [c for c in read_sources(folders.split(","), SourceOptions(subtitles="none")) if c.picture and c.sound]
        for seconds in arguments.seconds:
            pieces = []
            for clip in {clip.picture: clip for clip in clips}.values():
                try:
                    pieces += pieces_of(clip, seconds, yunet, voice)
                except UnreadableMedia as error:
                    print(f"left out: {error}")
            if len({piece[0] for piece in pieces}) > 1:
                print(f"| {name} | {seconds} | {measure(pieces, voice)}", flush=True)


if __name__ == "__main__":
    with one_thread():
        main()

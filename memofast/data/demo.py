"""The embedded demo corpus: synthetic talking people whose words, faces and voices share an emotion and a speaker.

Nothing here was recorded. Every clip draws an emotion, a speaker and a course of intensity over time; the sentence
takes its words from the emotion and its topic from the speaker's favourites (a stream has a vector for each word, as
GloVe would), face rows (10 a second) and speech rows (5 for 3 of those) are noisy projections of the same emotion, its
intensity, the speaker's identity and smooth motions. So each modality helps to predict the others. Every word has a
part of speech and a polarity, and most sentences have pseudo labels, as of a text model that is surer of a word for a
mood than of one for a deed. A corpus of its own holds the same clips with raw rows, small pictures and stretches of
sound that show emotion, speaker and motion in patterns.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from memofast.cache_home import cache_folder
from memofast.data.corpus import CORPUS, Corpus, write_corpus
from memofast.errors import MemofastError
from memofast.files import remove, replace_file, sweep, temporary_of
from memofast.store import FeatureWriter, TextWriter
from memofast.store.text_writer import PARTS_OF_SPEECH, POLARITIES

EMOTIONS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
SPLITS = {"train": 1600, "validation": 200, "test": 200}
VISUAL_WIDTH, SPEECH_WIDTH, GLOVE_WIDTH = 342, 96, 50
GLOVE, SOUND = "glove", "sound"  # the streams of word vectors and, beside raw faces, of waveforms
PICTURE, STRETCH = 24, 320  # side of a raw face in pixels, samples of a raw row of speech
DEMO, RAW_DEMO = "demo", "demo-raw"  # the paths of the embedded corpora in a recipe
EMBEDDED = (DEMO, RAW_DEMO)
_VERSION = 3  # of the rules below; a change of them makes a new folder
_SEED = 20211127
_SPEAKERS = 24
_IDENTITY = 6
_MOTIONS = 3
_NOISE = 0.3
_EXPRESSION = 3.0  # how far an emotion at full intensity moves a face or voice; identities have standard deviation 1
# streams of random numbers, apart from those of clips
_WORD_VECTORS, _PSEUDO_LABELS, _PATTERNS, _GRAIN = 2**40, 2**41, 2**42, 2**43
_FACES_RAW = 3  # of so many faces one is raw
_CONTRAST, _LOUDNESS = 16.0, 1500.0  # grey levels and sample values of a latent of 1
_WITHOUT = 0.05  # share of clips without faces, of clips without speech, and of sentences without pseudo labels
_SURE, _UNSURE, _DOUBT = 4.0, 2.0, 0.5  # scores of a text model: what mood and deed add, and their deviation

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MOODS = (
    "calm usual plain ordinary normal quiet",
    "happy joy|ful glad cheer|ful delight|ed wonder|ful",
    "surprise|d amazed aston|ish|ed stunned start|led sudden",
    "sad lonely tear|ful gloomy un|happy heart|broken",
    "angry furious mad annoyed out|rage|d bitter",
    "disgust|ing sick revolt|ing nasty foul gross",
    "afraid scared terrif|ied nervous anxious fright|en|ed",
    "smug scorn|ful pathetic ridiculous worth|less stupid",
)
_DEEDS = (
    "talk wait", "smile laugh", "gasp stare", "cry weep", "shout yell", "spit gag", "shake hide", "sneer mock",
)  # fmt: skip
_TOPICS = "movie weather game dinner letter journey party phone house music school doctor garden meeting photo dog"
_SENTENCES = (
    "i feel {mood} about the {topic} .",
    "the {topic} is so {mood} today .",
    "we are {mood} because of the {topic} .",
    "it was a {mood} {topic} , wasn't it ?",
    "when you see the {topic} you {deed} .",
    "they {deed} and feel {mood} , the {topic} again .",
    "this {topic} makes me {mood} , i {deed} .",
)
_VERBS, _ADVERBS = "feel is are was wasn't see makes", "so today again"  # of the sentences
_POLARITIES = {"happy": "positive", "surprise": "neutral"}  # of emotions; that of others is negative


def vocabulary() -> list[str]:
    """The word pieces of the demo's sentences; a piece's id is its index."""
    words = " ".join((*_MOODS, *_DEEDS, _TOPICS, *_SENTENCES)).replace("{", " {").split()
    pieces = {piece for word in words if not word.startswith("{") for piece in _pieces(word)}
    return [*SPECIAL, *sorted(pieces)]


def open_corpus(path: str, weight: float = 1.0) -> Corpus:
    """The corpus of a recipe: that in a folder, or for the paths `demo` and `demo-raw` an embedded one. Raises:
    `MemofastError` as `Corpus.open`."""
    return Corpus.open(demo_corpus(raw=path == RAW_DEMO) if path in EMBEDDED else path, weight)


def demo_corpus(folder: Path | None = None, splits: dict[str, int] | None = None, *, raw: bool = False) -> Path:
    """The folder of the demo corpus, generated at the first call, always with the same contents.

    Args: folder: where to keep it, by default below `cache_folder`; splits: number of clips by split; raw: with
        pictures [24 * 24] uint8 of every third face in place of feature rows, and a stream of stretches of sound
        [320] int16.
    Raises: `MemofastError` where the folder cannot be written. Interrupted work leaves nothing under the final name.
    """
    folder = folder or cache_folder() / f"{RAW_DEMO if raw else DEMO}-{_VERSION}"
    if (folder / CORPUS).is_file():
        return folder
    temporary = temporary_of(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, folder.name)
        temporary.mkdir()
        _generate(temporary, splits or SPLITS, raw)
        os.replace(temporary, folder)
    except OSError as error:
        if not (folder / CORPUS).is_file():  # another process may have been faster
            raise MemofastError(
                f"demo corpus: {folder.parent} cannot be written ({error.strerror}); free space, or set MEMOFAST_CACHE "
                "to another folder"
            ) from None
    finally:
        remove(temporary)
    return folder


def _generate(folder: Path, splits: dict[str, int], raw: bool) -> Corpus:
    ids = {split: [f"{split}-{number:05}" for number in range(count)] for split, count in splits.items()}
    world = _World()
    about = {"source": "memofast.data.demo (synthetic)", "licence": "Apache-2.0", "extractor": "memofast.data.demo"}
    with (
        TextWriter(
            folder / "text",
            cls_id=2,
            sep_id=3,
            classes=EMOTIONS,
            lexicon_classes=EMOTIONS[1:],
            emotions=EMOTIONS,
            labeller={"name": "memofast.data.demo"},
            with_parts_of_speech=True,
            **about,
        ) as text,
        FeatureWriter(
            folder / "visual",
            PICTURE**2 if raw else VISUAL_WIDTH,
            dtype="uint8" if raw else "float16",
            columns=("soft_labels",),
            classes=EMOTIONS,
            **about,
        ) as visual,
        FeatureWriter(folder / "speech", SPEECH_WIDTH, **about) as speech,
        FeatureWriter(folder / GLOVE, GLOVE_WIDTH, **about) as glove,
        FeatureWriter(folder / SOUND, STRETCH, dtype="int16", **about) if raw else nullcontext() as sound,
    ):
        for number, id in enumerate(id for split in ids.values() for id in split):
            clip = (_RawClip if raw else _Clip)(world, number)
            text.put(
                id, clip.tokens, clip.words, lexicon=clip.lexicon, part_of_speech=clip.part_of_speech,
                polarity=clip.polarity, utf8=clip.sentence, label=clip.emotion, emotions=clip.pseudo_label,
            )  # fmt: skip
            glove.put(id, world.vectors[[world.words[word] for word in clip.sentence.split()]])
            if clip.has_faces:
                visual.put(id, clip.faces, soft_labels=clip.soft_labels)
            if clip.has_speech:
                speech.put(id, clip.speech)
                if raw:
                    sound.put(id, clip.sound)
    replace_file(folder / "vocab.txt", ("\n".join(world.vocabulary) + "\n").encode())
    stores = {modality: folder / modality for modality in ("text", "visual", "speech")}
    facts = {"synthetic": True, "speakers": _SPEAKERS}
    streams = {GLOVE: (folder / GLOVE, "text")} | ({SOUND: (folder / SOUND, "speech")} if raw else {})
    return write_corpus(folder, "demo", stores, ids, facts, streams=streams)


def _random(stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[_SEED, stream]))


def _words() -> list[str]:
    """Every word that a sentence of the demo may have."""
    words = " ".join((*_MOODS, *_DEEDS, _TOPICS, *_SENTENCES)).replace("{", " {").split()
    return sorted({word.replace("|", "") for word in words if not word.startswith("{")})


def _parts_of_speech() -> dict[str, int]:
    """Of each word that is not of another one; as `_MOODS` writes it."""
    words = {"verb": (_VERBS, *_DEEDS), "adjective": _MOODS, "adverb": (_ADVERBS,), "noun": (_TOPICS,)}
    return {word: PARTS_OF_SPEECH.index(part) for part, rows in words.items() for word in " ".join(rows).split()}


def _pieces(word: str) -> list[str]:
    first, *rest = word.split("|")
    return [first, *(f"##{piece}" for piece in rest)]


class _World:
    """What all clips share: speakers, how they look and sound, and how latents become features."""

    def __init__(self):
        random = _random(0)
        self.vocabulary = vocabulary()
        self.ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        self.words = {word: number for number, word in enumerate(_words())}
        self.vectors = _random(_WORD_VECTORS).standard_normal((len(self.words), GLOVE_WIDTH))
        self.moods = [mood.split() for mood in _MOODS]
        self.deeds = [deed.split() for deed in _DEEDS]
        self.emotional = {
            word: emotion - 1 for emotion in range(1, 8) for word in self.moods[emotion] + self.deeds[emotion]
        }
        self.part_of_speech = _parts_of_speech()
        self.polarity = {
            word: POLARITIES.index(_POLARITIES.get(EMOTIONS[1 + emotion], "negative"))
            for word, emotion in self.emotional.items()
        }
        self.favourites = [random.choice(_TOPICS.split(), 2, replace=False) for _ in range(_SPEAKERS)]
        self.looks = random.standard_normal((_SPEAKERS, _IDENTITY))
        self.voices = random.standard_normal((_SPEAKERS, _IDENTITY))
        latents = len(EMOTIONS) + _IDENTITY + _MOTIONS
        self.to_faces = random.standard_normal((latents, VISUAL_WIDTH)) / np.sqrt(_IDENTITY)
        self.to_speech = random.standard_normal((latents, SPEECH_WIDTH)) / np.sqrt(_IDENTITY)
        self.pictures, self.sounds = _patterns(latents)


def _patterns(latents: int) -> tuple[np.ndarray, np.ndarray]:
    """What a latent of 1 adds to a raw face [latents, 576], waves across it, and to a stretch of sound [latents, 320],
    tones of 100 to 4,000 Hz."""
    random = _random(_PATTERNS)
    y, x = np.mgrid[:PICTURE, :PICTURE].reshape(2, -1) / PICTURE
    across, down = random.uniform(-2.5, 2.5, (2, latents, 1))
    pictures = np.cos(2 * np.pi * (across * x + down * y + random.random((latents, 1))))
    tones = random.uniform(100, 4000, (latents, 1))
    sounds = np.sin(2 * np.pi * tones * np.arange(STRETCH) / 16_000)
    return _CONTRAST * pictures, _LOUDNESS * sounds


class _Clip:
    """One synthetic clip. tokens, words, lexicon, part_of_speech, polarity: per piece; pseudo_label [8], or None; faces
    [V, 342], soft_labels [V, 8], speech [S, 96]."""

    def __init__(self, world: _World, number: int):
        random, self.number = _random(1 + number), number
        self.emotion = int(random.integers(len(EMOTIONS)))
        speaker = int(random.integers(_SPEAKERS))
        self._say(world, speaker, random)
        frames = 3 * int(random.integers(3, 13))
        course = np.sin(np.pi * (random.uniform(0, 0.4) + random.uniform(0.4, 0.6) * np.linspace(0, 1, 5 * frames)))
        self.has_faces = random.random() >= _WITHOUT
        self.has_speech = random.random() >= _WITHOUT
        self._show(world, speaker, course, random)

    def _show(self, world: _World, speaker: int, course: np.ndarray, random: np.random.Generator) -> None:
        intensity = course[::5]
        self.faces = self._features(world.looks[speaker], world.to_faces, intensity, random)
        self.soft_labels = self._labels(intensity, random)
        self.speech = self._features(world.voices[speaker], world.to_speech, course[::3], random)

    def _say(self, world: _World, speaker: int, random: np.random.Generator) -> None:
        choose = {
            "{mood}": random.choice(world.moods[self.emotion]),
            "{deed}": random.choice(world.deeds[self.emotion]),
            "{topic}": random.choice(world.favourites[speaker]),
        }
        spoken = [choose.get(word, word) for word in random.choice(_SENTENCES).split()]
        pieces = [(piece, number, word) for number, word in enumerate(spoken) for piece in _pieces(word)]
        self.tokens = [world.ids[piece] for piece, _, _ in pieces]
        self.words = [number for _, number, _ in pieces]
        self.lexicon = [world.emotional.get(word, -1) for _, _, word in pieces]
        self.part_of_speech = [world.part_of_speech.get(word, PARTS_OF_SPEECH.index("other")) for _, _, word in pieces]
        self.polarity = [world.polarity.get(word, POLARITIES.index("neutral")) for _, _, word in pieces]
        self.sentence = " ".join(spoken).replace("|", "")
        self.pseudo_label = self._read(choose["{mood}"] in spoken, _random(_PSEUDO_LABELS + self.number))

    def _read(self, has_mood: bool, random: np.random.Generator) -> np.ndarray | None:
        scores = _DOUBT * random.standard_normal(len(EMOTIONS))
        scores[self.emotion] += _SURE if has_mood else _UNSURE
        shares = np.exp(scores)
        return None if random.random() < _WITHOUT else shares / shares.sum()

    def _features(self, identity, projection, intensity, random) -> np.ndarray:
        latents = self._latents(identity, intensity, random)
        return latents @ projection + _NOISE * random.standard_normal((len(latents), projection.shape[1]))

    def _latents(self, identity, intensity, random) -> np.ndarray:
        rows = len(intensity)
        shown = np.zeros((rows, len(EMOTIONS)))
        shown[:, self.emotion] = _EXPRESSION * intensity
        times = np.arange(rows)[:, None] / 10
        motion = np.sin(times * random.uniform(1, 4, _MOTIONS) + random.uniform(0, 2 * np.pi, _MOTIONS))
        return np.concatenate((shown, np.tile(identity, (rows, 1)), motion), axis=1)

    def _labels(self, intensity, random) -> np.ndarray:
        scores = 0.3 * random.standard_normal((len(intensity), len(EMOTIONS)))
        scores[:, 0] += 2 * (1 - intensity)
        scores[:, self.emotion] += 3 * intensity
        shares = np.exp(scores)
        return shares / shares.sum(1, keepdims=True)


class _RawClip(_Clip):
    """The same clip with raw rows: faces [V / 3, 576] uint8, soft_labels [V / 3, 8], sound [V, 320] int16, a stretch
    for each face of the clip."""

    def _show(self, world: _World, speaker: int, course: np.ndarray, random: np.random.Generator) -> None:
        super()._show(world, speaker, course, random)
        self.soft_labels = self.soft_labels[::_FACES_RAW]
        intensity, grain = course[::5], _random(_GRAIN + self.number)
        shown = self._latents(world.looks[speaker], intensity, grain)[::_FACES_RAW] @ world.pictures
        self.faces = _rounded(128 + shown + _NOISE * _CONTRAST * grain.standard_normal(shown.shape), np.uint8)
        heard = self._latents(world.voices[speaker], intensity, grain) @ world.sounds
        self.sound = _rounded(heard + _NOISE * _LOUDNESS * grain.standard_normal(heard.shape), np.int16)


def _rounded(values: np.ndarray, dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    return values.round().clip(limits.min, limits.max).astype(dtype)

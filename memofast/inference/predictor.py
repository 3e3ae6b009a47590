"""A trained emotion model, opened with all that it needs to answer for texts, sounds, videos and features."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from memofast.data.conditions import condition_of, modalities_of
from memofast.devices import choose_device
from memofast.errors import MemofastError
from memofast.inference.answers import Answer, answers_of
from memofast.inference.preparation import Files, Preparation, check_extraction, extraction_options, open_pieces
from memofast.inference.samples import FEATURES, Sample, stored, text_columns
from memofast.inference.segments import Cutting, cut_clips, read_clips
from memofast.inference.watching import Shown, Utterance, Watching
from memofast.model.memobert.emotion import model_folder, open_emotion_model
from memofast.prepare.run.extraction import Extracted
from memofast.prepare.sources.clips import AUDIO, Clip
from memofast.prepare.text.word_pieces import WordPieces

_AT_ONCE = 8  # utterances of a film in memory
_CLS, _SEP = 101, 102


@dataclass(frozen=True)
class Prediction:
    """What the model says of one utterance, or of somebody else's face during it.

    named: the likeliest class, None of a regression, whose answer is `value`. probabilities: class -> probability; where any number of classes
    may hold they do not sum to 1. modalities: those that the model saw. importance: modality -> by how much the named class's probability (or the
    value) falls where it is left out; empty where the model saw one only. start, end: seconds in `file`, None of what has no times. track: number
    of the person whose face was taken, the same number for the same face throughout a file; None without a face. speaks: False of the others who are
    seen during the utterance `id`, of whom the model sees the face alone. notes: what was missing or odd.
    """

    id: str
    named: str | None
    probabilities: dict[str, float]
    modalities: tuple[str, ...]
    importance: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    text: str | None = None
    file: str | None = None
    start: float | None = None
    end: float | None = None
    track: int | None = None
    speaks: bool = True
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"modalities": list(self.modalities), "notes": list(self.notes)}


@dataclass(frozen=True)
class _Question:
    """What is asked of the model: what it sees of one person during an utterance."""

    utterance: Utterance
    person: Shown | None
    speaks: bool
    sample: Sample


def load(
    path: str | Path,
    *,
    face: str | Path | None = None,
    speech: str | Path | None = None,
    vocab: str | Path | None = None,
    yunet: str | Path | None = None,
    device: str = "auto",
) -> "Predictor":
    """Open a model for prediction.

    Args: path: the run of `memofast finetune` or `emotion-text train`, or its model folder. face, speech, vocab, yunet: the files its corpus was
        prepared with, needed only for what they make and checked against what the training used. device: `auto`, `cpu` or `cuda`.
    Raises: `MemofastError` where there is no such model.
    """
    files = Files(*(Path(given) if given else None for given in (face, speech, vocab, yunet)))
    return Predictor(Path(path), files, device)


class Predictor:
    """classes: names in the order of the model's outputs. modalities: what it reads, of `text`, `visual` and `speech`."""

    def __init__(self, path: Path, files: Files, device: str = "auto"):
        self.folder, self.files, self.device = model_folder(path), files, choose_device(device)
        logging.disable_progress_bar()  # of loading, which is quick
        self.model = open_emotion_model(self.folder).to(self.device)
        self.classes, self.kind = self.model.classes, self.model.kind
        self.preparation = Preparation.read(self.folder)
        self.widths = {modality: self.model.config.feature_width(modality) for modality in FEATURES}
        trained = self.preparation.modalities if self.preparation else ("text", *FEATURES)
        if self.preparation and self.preparation.settings and not self.preparation.of_store("text", "fingerprint"):
            trained = tuple(modality for modality in trained if modality != "text")  # its corpus had no words
        self.modalities = tuple(m for m in trained if m == "text" or self.widths[m])
        self._opened: dict[tuple[str, ...], Watching] = {}

    @cached_property
    def pieces(self) -> WordPieces:
        """The tokenizer of the training."""
        return open_pieces(self.preparation, self.files, self.folder, self.model.config.vocab_size)

    def _extraction(self, clips: Sequence[Clip]) -> Watching | None:
        """The extractors of the training that these clips need, opened once; None where the model reads no features of them."""
        seen = any(clip.picture for clip in clips)
        features = tuple(m for m in FEATURES if m in self.modalities and (seen or m != "visual"))
        if not features:
            return None
        if features not in self._opened:
            options = extraction_options(self.preparation, features, self.files, self.folder, self.device)
            opened = Watching(options)
            check_extraction(opened, self.preparation, self.widths, self.folder)
            self._opened[features] = opened
        return self._opened[features]

    def predict(
        self,
        *,
        text: str | None = None,
        audio: str | Path | None = None,
        video: str | Path | None = None,
        features: Mapping[str, np.ndarray] | None = None,
        others: bool = True,
    ) -> list[Prediction]:
        """Answers: one per utterance, and one for each other person who is seen during it.

        Args: text: one sentence; with `audio` or `video` what is said in the whole of it. audio, video: a media file, cut into utterances as by the
            command where no text is given. features: `visual` and `speech` rows [n, width], beside `text` if there is any. others: False leaves
            persons out who do not speak.
        Raises: `MemofastError` for what the model cannot read.
        """
        media = audio or video
        if media and features:
            raise MemofastError("give features or a media file, not both")
        if media:
            return list(self.stream(self._clips(Path(media), text, video is not None), others=others))
        if text is None and not features:
            raise MemofastError("nothing to predict: give text, audio, video or features")
        sample = self._sample(text, features or {}, "features")
        if not sample.modalities:
            raise MemofastError(f"{self.folder} reads {', '.join(self.modalities)}; of these nothing was given")
        (answer,) = answers_of(self.model, [sample], ["the sample"])
        return [self._prediction("sample", sample, answer, text=text)]

    def predict_many(self, texts: Sequence[str], *, explain: bool = False) -> list[Prediction]:
        """Answers for many sentences, packed without padding. Raises: `MemofastError` for a model that does not read text."""
        if "text" not in self.modalities:
            raise MemofastError(f"{self.folder} reads {', '.join(self.modalities)}, no text")
        samples = [self._sample(text, {}, "features") for text in texts]
        names = [f"text {number}" for number in range(1, len(samples) + 1)]
        found = answers_of(self.model, samples, names, explain)
        return [
            self._prediction(name, sample, answer, text=text)
            for name, sample, answer, text in zip(names, samples, found, texts, strict=True)
        ]

    def stream(
        self,
        clips: Sequence[Clip],
        seen: Callable[[Utterance], None] | None = None,
        left_out: Callable[[Clip, list[str]], None] | None = None,
        others: bool = True,
    ) -> Iterator[Prediction]:
        """Answers for clips as they are decoded, a few in memory at a time.

        Args: seen: called with each utterance before its answers. left_out: called with a clip that has nothing to answer for, and why. others:
            answer also for the persons seen beside the one who speaks, after that one's answer.
        Raises: `MemofastError` where no clip has anything that the model reads.
        """
        waiting: list[_Question] = []
        answered, reasons = 0, []
        for utterance in self._utterances(clips, others):
            questions = [question for question in self._questions(utterance) if question.sample.modalities]
            if not questions:
                why = utterance.notes or ["no text"]
                reasons += why
                if left_out:
                    left_out(utterance.clip, why)
                continue
            if seen:
                seen(utterance)
            waiting += questions
            if len(waiting) >= _AT_ONCE:
                yield from self._answered(waiting)
                answered, waiting = answered + len(waiting), []
        yield from self._answered(waiting)
        if not answered + len(waiting):
            raise MemofastError(
                f"nothing to predict: {self.folder} reads {', '.join(self.modalities)}, and there is {'; '.join(dict.fromkeys(reasons))}"
            )

    def clips(self, source: str, cutting: Cutting, seen: bool = True) -> list[Clip]:
        """The utterances of a file, a folder or a table, see `segments.cut_clips`; seen: False leaves pictures out.

        Raises: `MemofastError` where there is nothing, or a file that the extraction needs is missing.
        """
        clips = read_clips(source, cutting, self._longest())
        clips = clips if seen else [replace(clip, picture=None) for clip in clips]
        extraction = self._extraction(clips)
        if extraction is None:  # without sentences there is nothing to read
            return clips
        return cut_clips(clips, cutting, self._longest(), extraction.voice)

    def _longest(self) -> float:
        return self.preparation.settings.get("max_seconds", 30.0) if self.preparation else 30.0

    def _clips(self, media: Path, text: str | None, seen: bool) -> list[Clip]:
        if text is None:
            return self.clips(str(media), Cutting(), seen)
        if not media.is_file():
            raise MemofastError(f"no file {media}; check the path")
        picture = media if seen and media.suffix.lower() not in AUDIO else None
        return [Clip(media.stem, picture, media, text=text)]

    def _utterances(self, clips: Sequence[Clip], others: bool) -> Iterator[Utterance]:
        if extraction := self._extraction(clips):
            yield from extraction.utterances(clips, others)
        else:
            yield from (Utterance(Extracted(clip)) for clip in clips)

    def _questions(self, utterance: Utterance) -> Iterator[_Question]:
        """The utterance itself, and the faces of others whose rows were made."""
        extracted = utterance.extracted
        rows = {"visual": extracted.faces, "speech": extracted.sound}
        features = {modality: found.rows for modality, found in rows.items() if found is not None}
        what = f"rows of {extracted.clip.id}"
        yield _Question(utterance, utterance.shown, True, self._sample(extracted.clip.text, features, what))
        for other in utterance.others:
            if other.rows is not None:
                sample = self._sample(None, {"visual": other.rows}, f"{what}, person {other.track}")
                yield _Question(utterance, other, False, sample)

    def _sample(self, text: str | None, features: Mapping[str, np.ndarray], what: str) -> Sample:
        """A sample of what the model reads; longer than its positions, it is cut."""
        rows = {}
        for modality, given in features.items():
            if not self.widths.get(modality):
                raise MemofastError(f"{self.folder} reads no {modality} rows; it reads {', '.join(self.modalities)}")
            if modality in self.modalities:
                dtype = self.preparation.of_store(modality, "dtype", "float32") if self.preparation else "float32"
                kept = stored(given, dtype, self.widths[modality], f"{modality} {what}")
                rows[modality] = kept[: self.model.config.feature_positions(modality)]
        ids, words = (), ()
        special = self.preparation.of_store("text", "special_tokens", {}) if self.preparation else {}
        cls, sep = special.get("cls", _CLS), special.get("sep", _SEP)
        if text and "text" in self.modalities:
            tokens, room = self.pieces(text), self._text_room()
            ids, words, cls, sep = tokens.ids[:room], tokens.words[:room], self.pieces.cls_id, self.pieces.sep_id
        return Sample(*text_columns(ids, words, cls, sep), rows)

    def _text_room(self) -> int:
        prompt = getattr(self.model, "prompt", None)
        return self.model.config.max_position_embeddings - 2 - (prompt.longest if prompt else 0)

    def _answered(self, waiting: Sequence[_Question]) -> Iterator[Prediction]:
        names = [question.utterance.clip.id for question in waiting]
        found = answers_of(self.model, [question.sample for question in waiting], names)
        for question, answer in zip(waiting, found, strict=True):
            utterance, clip = question.utterance, question.utterance.clip
            start, end = utterance.times
            file = clip.picture or clip.sound
            yield self._prediction(
                clip.id, question.sample, answer, text=clip.text if question.speaks else None, file=file and str(file), start=start, end=end,
                track=question.person and question.person.track, speaks=question.speaks,
                notes=tuple(utterance.notes) if question.speaks else (),
            )  # fmt: skip

    def _prediction(self, id: str, sample: Sample, answer: Answer, notes: tuple[str, ...] = (), **known) -> Prediction:
        if self.kind == "regression":
            named, probabilities, value = None, {}, float(answer.outputs[0])
        else:
            named, value = self.classes[answer.named], None
            probabilities = {name: float(p) for name, p in zip(self.classes, answer.outputs, strict=True)}
        notes += self._untrained(sample.modalities)
        return Prediction(id, named, probabilities, sample.modalities, answer.importance, value, notes=notes, **known)

    def _untrained(self, modalities: tuple[str, ...]) -> tuple[str, ...]:
        """A note where the training never showed these modalities without others."""
        trained = self.preparation.conditions if self.preparation else ()
        if not trained or not modalities or condition_of(modalities) in trained:
            return ()
        known = ", ".join("+".join(modalities_of(condition)) for condition in trained)
        return (f"trained on {known}, not on {'+'.join(modalities)} alone",)

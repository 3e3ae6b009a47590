"""A trained emotion model, opened with all that it needs to predict from texts, sounds, videos and features."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers.utils import logging

from memofast.data.conditions import condition_of, modalities_of
from memofast.data.dialogue import Telling
from memofast.data.modality import FEATURES, MODALITIES
from memofast.devices import choose_device
from memofast.errors import MemofastError
from memofast.inference.heard_dialogues import HeardDialogues, Moment, as_said, in_turn, notes_on_dialogues
from memofast.inference.prediction import Prediction
from memofast.inference.preparation import Files, Preparation, check_extraction, extraction_options, open_pieces
from memofast.inference.sample_predictions import Importance, predict_samples
from memofast.inference.samples import Sample, stored, text_columns
from memofast.inference.segments import Cutting, cut_clips, read_clips
from memofast.inference.sentences import check_sentence, named_sentences, named_speakers
from memofast.inference.watching import Shown, Utterance, watch
from memofast.model.families import open_emotion_model
from memofast.model.folder import model_folder
from memofast.prepare.media.streams import ANY_STREAM, StreamChoice
from memofast.prepare.run.extraction import Extracted, Extraction
from memofast.prepare.sources.clips import AUDIO, Clip
from memofast.prepare.sources.table import Columns
from memofast.prepare.text.word_pieces import WordPieces, has_vocabulary

_AT_ONCE = 8  # utterances of a film in memory
_CLS = 101  # BERT's
_NO_WORDS = "no words: what the model says of nothing"
_RAW_DTYPES = {"visual": "uint8", "speech": "int16"}  # pixels and samples
_SPECIAL = 2  # rows of a sentence: [CLS], [SEP]
_OF_NUMBERS = 6  # further word pieces of a speaker's number, before the words and in the question


@dataclass(frozen=True)
class _Seen:
    """What the model sees of one person during an utterance."""

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

    Args: path: the run of `memofast finetune` or `emotion-text train`, or its model folder. face, speech, vocab, yunet:
        the files its corpus was prepared with, needed only for what they make and checked against what the training
        used. device: `auto`, `cpu` or `cuda`.
    Raises: `MemofastError` where there is no such model.
    """
    files = Files(*(Path(given) if given else None for given in (face, speech, vocab, yunet)), option="{}=")
    return Predictor(Path(path), files, device)


class Predictor:
    """classes: names in the order of the model's outputs. modalities: what it reads, of `text`, `visual` and
    `speech`. tracks: which tracks of films are read."""

    def __init__(self, path: Path, files: Files, device: str = "auto", tracks: StreamChoice = ANY_STREAM):
        self.tracks = tracks
        self.folder, self.files, self.device = model_folder(path), files, choose_device(device)
        logging.disable_progress_bar()  # of loading, which is quick
        self.model = open_emotion_model(self.folder).to(self.device)
        if self.model.context and self.model.context.later:
            raise MemofastError(
                f"{self.folder} reads {self.model.context.later} later utterances, which are not known when one is "
                "predicted; fine-tune with context.later=0"
            )
        self.classes, self.kind = self.model.outputs, self.model.kind
        self.preparation = Preparation.read(self.folder)
        self.widths = {modality: self.model.reads.get(modality, 0) for modality in (*FEATURES, *self.model.streams)}
        trained = self.preparation.modalities if self.preparation else MODALITIES
        if self.preparation and self.preparation.settings and not self.preparation.of_store("text", "fingerprint"):
            trained = tuple(modality for modality in trained if modality != "text")  # its corpus had no words
        self.modalities = tuple(m for m in trained if m in (*self.model.reads, *self.model.streams.values()))
        self._opened: dict[tuple[str, ...], Extraction] = {}

    @cached_property
    def pieces(self) -> WordPieces:
        """The tokenizer of the training."""
        return open_pieces(self.preparation, self.files, self.folder, self.model.reads["text"])

    @cached_property
    def telling(self) -> Telling | None:
        """How the model's texts are written with what was said before; None where it reads utterances alone."""
        return Telling(self.model.context, self.pieces.wording) if self.model.context else None

    @cached_property
    def _cls(self) -> int:
        """[CLS] of a sample without words."""
        special = self.preparation.of_store("text", "special_tokens", {}) if self.preparation else {}
        if "cls" not in special and "text" in self.model.reads and has_vocabulary(self.files.vocab or self.folder):
            return self.pieces.cls_id
        return special.get("cls", _CLS)

    def _extraction(self, clips: Sequence[Clip]) -> Extraction | None:
        """The extractors of the training that these clips need, opened once; None where the model reads no features of
        them."""
        seen = any(clip.picture for clip in clips)
        there = {"visual": seen, "speech": seen or any(clip.sound for clip in clips)}
        features = tuple(m for m in FEATURES if m in self.modalities and there[m])
        if not features:
            return None
        if features not in self._opened:
            options = extraction_options(self.preparation, features, self.files, self.folder, self.device, self.tracks)
            opened = Extraction(options)
            check_extraction(opened, self.preparation, self.widths, self.files, self.folder)
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
        """Predictions: one per utterance, and one for each other person who is seen during it.

        Args: text: one sentence; with `audio` or `video` what is said in the whole of it. audio, video: a media file,
            cut into utterances as by the command where no text is given. features: `visual` and `speech` rows [n,
            width], or those of a stream that the model reads, beside `text` if there is any. others: False leaves
            persons out who do not speak.
        Raises: `MemofastError` for what the model cannot read.
        """
        if text is not None:
            check_sentence(text, "text")
        media = audio or video
        if media and features:
            raise MemofastError("give features or a media file, not both")
        if media:
            return list(self.stream(self._clips(Path(media), text, video is not None), others=others))
        if text is None and not features:
            raise MemofastError("nothing to predict: give text, audio, video or features")
        sample = self._sample(text, features or {}, "features")
        if lacks := self._lacking(sample):
            raise MemofastError(f"nothing to predict: there is {lacks}, of {self.folder}")
        if not sample.modalities:
            unread = " that is a word" if text is not None and "text" in self.modalities else ""
            raise MemofastError(f"{self.folder} reads {', '.join(self.modalities)}; of these nothing was given{unread}")
        (scores,), (importance,) = predict_samples(self.model, [sample], ["the sample"])
        return [self._prediction("sample", sample, scores, importance, text=text)]

    def predict_many(
        self, texts: Sequence[str], *, explain: bool = False, speakers: Sequence[str | None] | None = None
    ) -> list[Prediction]:
        """Predictions for many sentences, packed without padding; one without words is noted.

        Args: speakers: who says each (None: not known), where the sentences are one dialogue in this order, of which a
            model reads what was said before; without, each is by itself.
        Raises: `MemofastError` for a model that does not read text, or no dialogues, and for what is no list of
            sentences.
        """
        if "text" not in self.modalities or "text" not in self.model.reads:
            raise MemofastError(f"{self.folder} reads {', '.join(self.model.reads)}, no text")
        named = named_sentences(texts)
        moments = [Moment()] * len(named) if speakers is None else self._dialogue(speakers, len(named))
        heard = HeardDialogues(self.telling) if self.telling else None
        samples = [
            self._sample(text, {}, "features", heard, at) for text, at in zip(named.values(), moments, strict=True)
        ]
        if not samples:
            return []
        found = zip(*predict_samples(self.model, samples, list(named), explain), strict=True)
        return [
            self._prediction(name, sample, *said, text=text, notes=() if sample.modalities else (_NO_WORDS,))
            for (name, text), sample, said in zip(named.items(), samples, found, strict=True)
        ]

    def _dialogue(self, speakers: Sequence[str | None], count: int) -> list[Moment]:
        """Where each of so many texts of one dialogue is said."""
        if not self.telling:
            raise MemofastError(f"{self.folder} reads utterances alone, no dialogue; leave speakers out")
        names = named_speakers(speakers, count)
        return [Moment("dialogue", (place,), name) for place, name in enumerate(names)]

    def stream(
        self,
        clips: Sequence[Clip],
        seen: Callable[[Utterance], None] | None = None,
        left_out: Callable[[Clip, list[str]], None] | None = None,
        others: bool = True,
    ) -> Iterator[Prediction]:
        """Predictions for clips as they are decoded, a few in memory at a time.

        Args: seen: called with each utterance before its predictions. left_out: called with a clip in which there is
            nothing to read, and why. others: predict also for the persons seen beside the one who speaks, after that
            one.
        Raises: `MemofastError` where no clip has anything that the model reads.
        """
        waiting: list[_Seen] = []
        predicted, reasons = 0, []
        said = HeardDialogues(self.telling) if self.telling else None
        for utterance in self._utterances(clips, others):
            read = [seen_of for seen_of in self._everyone(utterance, said) if seen_of.sample.modalities]
            lacking = [self._lacking(seen_of.sample) for seen_of in read]
            everyone = [seen_of for seen_of, lacks in zip(read, lacking, strict=True) if not lacks]
            if not everyone:
                why = [lacks for lacks in lacking if lacks] or utterance.notes or ["no text"]
                reasons += why
                if left_out:
                    left_out(utterance.clip, why)
                continue
            if seen:
                seen(utterance)
            waiting += everyone
            if len(waiting) >= _AT_ONCE:
                yield from self._predicted(waiting)
                predicted, waiting = predicted + len(waiting), []
        yield from self._predicted(waiting)
        if not predicted + len(waiting):
            raise MemofastError(
                f"nothing to predict: {self.folder} reads {', '.join(self.modalities)}, and there is "
                f"{'; '.join(dict.fromkeys(reasons))}"
            )

    def clips(
        self,
        source: str,
        cutting: Cutting,
        seen: bool = True,
        tell: Callable[[str], None] = lambda line: None,
        columns: Columns = Columns(),
    ) -> list[Clip]:
        """The utterances of a file, a folder or a table, see `segments.cut_clips`, in the order of their dialogues.

        Args: seen: False leaves pictures out. tell: is given a line for each file that is not used, and for what was
            chosen. columns: which are read of a table.

        Raises: `MemofastError` where there is nothing, or a file that the extraction needs is missing.
        """
        found = read_clips(source, cutting, self._longest(), columns)
        for entry in found.left_out:
            tell(f"not used: {entry.file}, {entry.reason}" + (f" ({entry.detail})" if entry.detail else ""))
        for note in found.notes:
            tell(f"note: {note}")
        clips = found.clips if seen else [replace(clip, picture=None) for clip in found.clips]
        extraction = self._extraction(clips)
        if extraction is not None:  # without sentences there is else nothing to read
            clips = cut_clips(clips, cutting, self._longest(), extraction.voice, self.tracks)
        for note in notes_on_dialogues(clips, self.model.context, self.folder):
            tell(f"note: {note}")
        return in_turn(clips)

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
            watched = watch(extraction, clips, others)
            yield from as_said(watched, clips) if self.telling else watched
        else:
            yield from (Utterance(Extracted(clip)) for clip in (in_turn(clips) if self.telling else clips))

    def _everyone(self, utterance: Utterance, said: HeardDialogues | None) -> Iterator[_Seen]:
        """The utterance itself, and the faces of others whose rows were made. said: in dialogues so far."""
        extracted = utterance.extracted
        rows = {"visual": extracted.faces, "speech": extracted.sound}
        features = {modality: found.rows for modality, found in rows.items() if found is not None}
        what = f"rows of {extracted.clip.id}"
        moment = Moment.of(extracted.clip, utterance.times[0], utterance.track)
        text, unread = extracted.clip.text, bool(self.preparation and self.preparation.beside(extracted.clip))
        sample = self._sample(text, features, what, said, moment, unread)
        yield _Seen(utterance, utterance.shown, True, sample)
        for other in utterance.others:
            if other.rows is not None:
                sample = self._sample(None, {"visual": other.rows}, f"{what}, person {other.track}")
                yield _Seen(utterance, other, False, sample)

    def _sample(
        self,
        text: str | None,
        features: Mapping[str, np.ndarray],
        what: str,
        said: HeardDialogues | None = None,
        moment: Moment = Moment(),
        elsewhere: bool = False,
    ) -> Sample:
        """A sample of what the model reads; longer than its positions, it is cut, and says so. said: in dialogues so
        far, which hears it too, if it has words, rows, or rows elsewhere: `prepare` drops what has none; None: it is by
        itself. moment: where it is said."""
        rows, streams, cut = {}, {}, []
        for modality, given in features.items():
            if not self.widths.get(modality):
                raise MemofastError(f"{self.folder} reads no {modality} rows; it reads {', '.join(self.modalities)}")
            if modality in self.model.streams:
                kept = stored(given, self._dtype_of(modality), self.widths[modality], f"{modality} {what}")
                streams[modality] = kept, self.model.streams[modality]
            elif modality in self.modalities:
                kept = stored(given, self._dtype_of(modality), self.widths[modality], f"{modality} {what}")
                rows[modality] = kept[: self.model.longest.get(modality)]
                if len(kept) > len(rows[modality]):
                    cut.append(f"the first {len(rows[modality])} of {len(kept)} {modality} rows are read")
        ids, words = (), ()
        columns = text_columns(ids, words, self._cls, self._cls)
        if text and "text" in self.modalities and "text" in self.model.reads:
            tokens, room = self.pieces(text), self._text_room()
            ids, words = tokens.ids[:room], tokens.words[:room]
            columns = text_columns(ids, words, self.pieces.cls_id, self.pieces.sep_id)
            if tokens.cut or len(tokens.ids) > len(ids):
                read = len(set(words))
                cut.append(f"the first {read} of {len(set(tokens.words)) + tokens.cut} words are read")
        if self.model.streams:  # a batch carries every stream that the model reads
            streams = {
                name: streams.get(name, (np.zeros((0, self.widths[name]), self._dtype_of(name)), modality))
                for name, modality in self.model.streams.items()
            }
        if self.telling:
            said = said or HeardDialogues(self.telling)
            if len(ids):
                *columns, notes = said.text(ids, words, moment)
                cut += notes
            own = rows
            rows, notes = said.rows(own, moment)
            cut += notes
            if len(ids) or features or elsewhere:
                said.hear(ids, moment, own)
        return Sample(*columns, rows, streams, tuple(cut))

    def _dtype_of(self, name: str) -> str:
        """In which the rows of a modality or stream are packed."""
        if name in self.model.raw:
            return _RAW_DTYPES[self.model.streams.get(name, name)]
        return self.preparation.of_store(name, "dtype", "float32") if self.preparation else "float32"

    def _text_room(self) -> int | None:
        """Most word pieces of a sentence."""
        longest = self.model.longest.get("text")
        if longest is None or self.telling is None:
            return None if longest is None else longest - _SPECIAL
        return longest - int(self.telling.alone(np.zeros(1), [1])[0]) - _OF_NUMBERS

    def _predicted(self, waiting: Sequence[_Seen]) -> Iterator[Prediction]:
        names = [one.utterance.clip.id for one in waiting]
        found = zip(*predict_samples(self.model, [one.sample for one in waiting], names), strict=True)
        for one, said in zip(waiting, found, strict=True):
            utterance, clip = one.utterance, one.utterance.clip
            start, end = utterance.times
            file = clip.picture or clip.sound
            yield self._prediction(
                clip.id, one.sample, *said, text=clip.text if one.speaks else None, file=file and str(file),
                start=start, end=end, track=one.person and one.person.track, speaks=one.speaks,
                dialogue=clip.dialogue, position=clip.position, speaker=clip.speaker if one.speaks else None,
                notes=tuple(utterance.notes) if one.speaks else (),
            )  # fmt: skip

    def _prediction(
        self, id: str, sample: Sample, scores: np.ndarray, importance: Importance, notes: tuple[str, ...] = (), **known
    ) -> Prediction:
        if self.kind == "regression":
            named, probabilities, value = None, {}, float(scores[0])
        else:
            named, value = self.classes[int(scores.argmax())], None
            probabilities = {name: float(p) for name, p in zip(self.classes, scores, strict=True)}
        notes += sample.cut + self._untrained(sample.modalities)
        return Prediction(id, named, probabilities, sample.modalities, importance, value, notes=notes, **known)

    def _lacking(self, sample: Sample) -> str:
        """What a sample lacks that the model cannot do without, in words; "" where it lacks nothing."""
        trained = self.preparation.conditions if self.preparation else ()
        known = not sample.modalities or condition_of(sample.modalities) in trained
        for modality, least in getattr(self.model, "shortest", {}).items():  # most families have no such bound
            rows = len(sample.rows.get(modality, ()))
            if rows < least and (rows or not known):
                return f"too little: {rows} {modality} rows, fewer than the {least} of a window"
        return ""

    def _untrained(self, modalities: tuple[str, ...]) -> tuple[str, ...]:
        """A note where the training never showed these modalities without others."""
        trained = self.preparation.conditions if self.preparation else ()
        if not trained or not modalities or condition_of(modalities) in trained:
            return ()
        known = ", ".join("+".join(modalities_of(condition)) for condition in trained)
        return (f"trained on {known}, not on {'+'.join(modalities)} alone",)

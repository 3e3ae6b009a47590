"""How the rows of a model's training corpus were made: `preparation.json` beside the model, so that prediction makes
the same ones.

It names extractors and the fingerprints of their weights, not their files: those are given anew and compared.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from memofast.data.conditions import CONDITIONS, modalities_of
from memofast.data.corpus import Corpus
from memofast.data.modality import MODALITIES
from memofast.devices import choose_device
from memofast.errors import MemofastError
from memofast.files import write_json
from memofast.model.feature_sets import feature_sets_of, keep_feature_sets
from memofast.prepare.faces.extractors import FRAMES, RAW, FaceChoice
from memofast.prepare.media.streams import ANY_STREAM, StreamChoice
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.run.group_normalisation import WITHIN_GROUP
from memofast.prepare.run.settings import Settings, read_settings
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import SpeechChoice, parse_functionals
from memofast.prepare.text.vocabulary import vocabulary_of
from memofast.prepare.text.word_pieces import WordPieces, copy_vocabulary, has_vocabulary
from memofast.schemas import Count, Name, Schema, read_described

PREPARATION = "preparation.json"
_NEEDED = ("face", "speech", "speech_mean", "max_seconds", "voice", "speaker")  # settings


@dataclass(frozen=True)
class Files:
    """Where the models lie that preparation needs. face: DenseFace file or model folder; speech: model folder; vocab:
    vocab.txt or tokenizer folder; yunet: face detector, None for the downloaded one. option: how whoever gives them
    names one, in errors."""

    face: Path | None = None
    speech: Path | None = None
    vocab: Path | None = None
    yunet: Path | None = None
    option: str = "--{}"

    def named(self, file: str) -> str:
        return self.option.format(file)


class _Rows(Schema):
    """How the rows of a store were made."""

    extractor: str = ""
    fingerprint: Name = ""
    normalisation: Name = ""
    special_tokens: dict[Name, Count] = Field(default_factory=dict)
    dtype: Literal["float16", "float32", "uint8", "int16"] | None = None
    width: Count | None = None


class _Preparation(Schema):
    settings: Settings
    stores: dict[Literal[MODALITIES], _Rows]
    modalities: list[Literal[MODALITIES]]
    conditions: list[Literal[CONDITIONS]] = Field(default_factory=list)


@dataclass(frozen=True)
class Preparation:
    """settings: the corpus's `prepare.json`, empty for a corpus that was not made of media. stores: modality ->
    extractor, fingerprint, normalisation, dtype and width of its rows. modalities: those the model was trained to read.
    conditions: of them under which it was trained, none where that was not written down."""

    settings: dict[str, Any]
    stores: dict[str, dict[str, Any]]
    modalities: tuple[str, ...]
    conditions: tuple[str, ...] = ()

    @classmethod
    def of(cls, corpus: Corpus, conditions: Iterable[str]) -> "Preparation":
        """That of a corpus, for a model trained under these conditions of modalities."""
        conditions = tuple(conditions)
        stores = {}
        for modality, store in corpus.stores.items():
            known = ("extractor", "fingerprint", "normalisation", "special_tokens")
            stores[modality] = {name: store.meta[name] for name in known if name in store.meta}
            if modality != "text":
                stores[modality] |= dict(zip(("dtype", "width"), store.columns["rows"], strict=True))
        return cls(read_settings(corpus.path), stores, modalities_of("".join(conditions)), conditions)

    @classmethod
    def read(cls, folder: Path) -> "Preparation | None":
        """The one in a model's folder, None where there is none. Raises: `MemofastError` for a damaged one."""
        path = folder / PREPARATION
        if not os.path.lexists(path):
            return None
        found = read_described(path, _Preparation, "a model's preparation", "restore it or fine-tune again")
        return cls(found["settings"], found["stores"], tuple(found["modalities"]), tuple(found.get("conditions", ())))

    def beside(self, clip: Clip) -> tuple[str, ...]:
        """Modalities of a clip's files of which its corpus had rows that the model was not trained to read."""
        there = {"visual": clip.picture, "speech": clip.sound} if not clip.problem else {}
        return tuple(m for m, file in there.items() if file and m in self.stores and m not in self.modalities)

    def of_store(self, modality: str, entry: str, default: Any = None) -> Any:
        return self.stores.get(modality, {}).get(entry, default)


def keep_preparation(corpus: Corpus, conditions: Iterable[str], folder: Path, init: str | None) -> None:
    """Write `preparation.json` and `features.json` into the folder of a model just saved, and the vocabulary of its
    corpus where that lies there or in the model's start."""
    preparation = Preparation.of(corpus, conditions)
    write_json(folder / PREPARATION, asdict(preparation))
    sets = feature_sets_of(corpus)
    keep_feature_sets({name: own for name, own in sets.items() if name in preparation.modalities}, folder)
    if vocabulary := vocabulary_of([corpus], init):
        copy_vocabulary(vocabulary, folder)


def open_pieces(preparation: Preparation | None, files: Files, folder: Path, vocab_size: int) -> WordPieces:
    """The tokenizer of the model's training. Raises: `MemofastError` where it is missing or another one."""
    place = files.vocab or folder
    option = files.named("vocab")
    if files.vocab is None and not has_vocabulary(folder):
        raise MemofastError(f"{folder} holds no vocabulary; give {option}, the vocab.txt its corpus was prepared with")
    pieces = WordPieces(place)
    wanted = preparation.of_store("text", "fingerprint") if preparation else None
    if (wanted and pieces.fingerprint != wanted) or pieces.size > vocab_size:
        raise MemofastError(f"{place} is not the vocabulary that {folder} was trained with; give that one as {option}")
    return pieces


def extraction_options(
    preparation: Preparation | None,
    modalities: Iterable[str],
    files: Files,
    folder: Path,
    device: str,
    tracks: StreamChoice = ANY_STREAM,
) -> ExtractionOptions:
    """Options that make the rows the model was trained on, of the modalities asked for, from these tracks of a film.

    Raises: `MemofastError` where that is not known, or a file is not given.
    """
    settings = preparation.settings if preparation else {}
    needed = [name for name in _NEEDED if name != "face" or "visual" in modalities]
    if missing := [name for name in needed if settings.get(name) is None]:
        why = f"it has no {PREPARATION}"
        if preparation:
            why = f"{missing[0]} of its corpus is not known" if settings else "its corpus was not made of media"
        raise MemofastError(f"{folder} does not say how its face and speech rows were made ({why}); give features")
    face = speech = yunet = None
    if "visual" in modalities:
        raw = (
            RAW.fullmatch(settings["face"]) or FRAMES.fullmatch(settings["face"])
        ) is not None  # whose soft labels, targets of a training, nobody reads here
        if files.face is None and not raw:
            raise MemofastError(
                f"{folder} reads faces by {settings['face']}; give {files.named('face')}, the "
                f"{_kind_of(settings['face'])} its corpus was prepared with"
            )
        if raw and files.face is not None:
            raise MemofastError(
                f"{folder} reads {settings['face']} as they are, so that nothing reads {files.face}; leave "
                f"{files.named('face')} out"
            )
        pixels = settings.get("face_pixels") if settings.get("face_normalisation") == "corpus" else None
        pixels = (pixels["mean"], pixels["std"]) if pixels and pixels["faces"] else None
        face = FaceChoice.described(settings["face"], None if raw else files.face, pixels)
        yunet = _yunet(files, folder) if preparation.of_store("visual", "extractor", "").endswith("yunet") else None
    if "speech" in modalities:
        if " layer " in settings["speech"] and files.speech is None:
            raise MemofastError(
                f"{folder} hears by {settings['speech']}; give {files.named('speech')}, the model folder its corpus "
                "was prepared with"
            )
        if files.speech is not None and " layer " not in settings["speech"]:
            raise MemofastError(
                f"{folder} hears by {settings['speech']}, so that nothing reads {files.speech}; leave "
                f"{files.named('speech')} out"
            )
        parts = settings.get("speech_functionals")
        parts = parse_functionals(parts) if parts else ()
        speech = SpeechChoice.described(settings["speech"], files.speech, settings["speech_mean"], parts)
    return ExtractionOptions(
        face, yunet, speech or SpeechChoice("none", None, 1), settings["max_seconds"], settings["voice"],
        speaker=settings["speaker"], device=choose_device(device), streams=tracks,
    )  # fmt: skip


def _kind_of(face: str) -> str:
    return "DenseFace file" if face.startswith("denseface") else "model folder"


def _yunet(files: Files, folder: Path) -> Path:
    from memofast.downloads import home_of

    path = files.yunet or home_of("yunet")
    if not path.is_file():
        raise MemofastError(
            f"{folder} reads faces found by YuNet, and there is none at {path}; fetch it with `memofast download "
            f"yunet` or give {files.named('yunet')}"
        )
    return path


def check_extraction(
    extraction: Extraction, preparation: Preparation, widths: dict[str, int], files: Files, folder: Path
) -> None:
    """Raises: `MemofastError` where the extractors are not those of the training."""
    for modality, rows, file in (("visual", extraction.face, "face"), ("speech", extraction.speech, "speech")):
        if rows is None:
            continue
        width = extraction.options.speech.width(rows.width) if modality == "speech" else rows.width
        if width != widths[modality]:
            raise MemofastError(
                f"{folder} reads {modality} rows {widths[modality]} wide, those of {rows.name} are {width}"
            )
        if (wanted := preparation.of_store(modality, "fingerprint")) != rows.fingerprint:
            raise MemofastError(
                f"{files.named(file)}: this {rows.name} has fingerprint {rows.fingerprint}, {folder} was trained with "
                f"{wanted}; give that one"
            )
        if (wanted := preparation.of_store(modality, "normalisation", "")) != rows.normalisation:
            needs = (
                "; that takes all samples of each: evaluate a corpus normalised the same way"
                if WITHIN_GROUP in wanted
                else ""
            )
            raise MemofastError(
                f"{folder} was trained on {modality} rows with {wanted}, not {rows.normalisation}{needs}"
            )

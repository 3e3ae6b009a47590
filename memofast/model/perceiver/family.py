"""The multimodal Perceiver as the rest of the package knows it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memofast.data import Corpus, Split
from memofast.data.modality import FEATURES, MODALITIES
from memofast.errors import MemofastError, MemofastWarning
from memofast.model.bounds import check_memory
from memofast.model.compatibility import check_widths
from memofast.model.family import Family
from memofast.model.perceiver.configuration import PerceiverEmotionConfig
from memofast.model.perceiver.emotion import PerceiverForEmotion
from memofast.model.perceiver.export import export
from memofast.model.perceiver.folder import LABEL_HEAD, config_of, entries_of, load, open_perceiver
from memofast.model.perceiver.section import PerceiverSection
from memofast.model.perceiver.windows import problem_of
from memofast.model.problems import PROBLEMS
from memofast.sections import Section

_OF_TRAINING = {
    "attention_probs_dropout_prob", "head_dropout_prob", "initializer_range", "hop", "pooling", "label_head"
}  # fmt: skip
_PREPARE = "--face frames,side={} --speech raw,rate={}"


def start(
    section: PerceiverSection, kind: str, classes: Sequence[str], train: Split | None, prompt: Section | None = None
) -> PerceiverForEmotion:
    """The model that a fine-tuning starts from, see `family.Start`.

    Raises: `MemofastError` for a prompt, without a corpus, for one that keeps no whole pictures or sound, or others
        than the checkpoint's, for clips shorter than a window, silent or without pictures, and for a checkpoint of
        other classes whose outputs may not be replaced.
    """
    if prompt is not None:
        raise MemofastError("model.family perceiver reads no word pieces, so that it has no prompts; leave prompt out")
    if train is None:
        raise MemofastError(
            "model.family perceiver reads pictures and sound, of which text alone has none; choose memobert"
        )
    side, samples = _stored_sizes(train.corpus)
    before = entries_of(Path(section.init)) if section.init else {}
    given = section.entries()
    _refuse_other_sizes(section, before, given)
    named = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
    entries = {**_of_pictures(side, samples), **before, **given, "problem_type": PROBLEMS[kind], **named}
    entries.pop("num_labels", None)
    if not section.init:
        entries.setdefault("output_shape", [1, entries.get("num_frames", 16), side, side])
    where = section.init or "model"
    config = config_of(Path(where), entries) if section.init else _of_recipe(entries)
    _refuse_other_media(where, config, train.corpus, side, samples)
    _refuse_short(train, config.num_frames)
    if not section.init:
        _check_memory(config)
        return PerceiverForEmotion(config)
    anew = _labels_anew(section, before, config, classes)
    model = load(Path(section.init), config, LABEL_HEAD if anew else "$^")
    check_widths(model, section.init, train.corpus)
    return model


def _of_recipe(entries: dict[str, Any]) -> PerceiverEmotionConfig:
    try:
        return PerceiverEmotionConfig(**entries)
    except ValueError as error:
        raise MemofastError(f"model: {error}; give sizes that go together") from None


def _stored_sizes(corpus: Corpus) -> tuple[int, int]:
    """Pixels along a picture, and samples of sound beside it."""
    prepare = _PREPARE.format(224, 48000)
    for name in FEATURES:
        if name not in corpus.stores:
            raise MemofastError(
                f"corpus {corpus.path} has no {'pictures' if name == 'visual' else 'sound'}, which model.family "
                f"perceiver reads; prepare it with {prepare}"
            )
        if name not in corpus.raw:
            raise MemofastError(
                f"corpus {corpus.path} has ready {name} rows, model.family perceiver reads pictures and sound as they "
                f"are; prepare it with {prepare}"
            )
    side = isqrt(corpus.width("visual") // 3)
    if 3 * side * side != corpus.width("visual"):
        raise MemofastError(
            f"corpus {corpus.path} keeps pictures of {corpus.width('visual')} numbers, no coloured squares; prepare it "
            f"with {prepare}"
        )
    _refuse_other_rates(corpus)
    return side, corpus.width("speech")


def _refuse_other_rates(corpus: Corpus) -> None:
    """Rows of both are seen and heard for 1/25 s, by what their stores say of how they were made."""
    pictures, sound = (corpus.stores[name].meta.get("fingerprint", "") for name in FEATURES)
    if pictures.startswith("frames-") and not pictures.startswith("frames-1-25-"):
        raise MemofastError(f"corpus {corpus.path} keeps pictures at another rate than 25 a second; prepare it anew")
    if sound.startswith("raw-1-"):
        rate, width = map(int, sound.split("-")[2:4])
        if rate != 25 * width:
            raise MemofastError(
                f"corpus {corpus.path} keeps {width} samples of sound a row at {rate} Hz, {width / rate * 1000:g} ms, "
                f"but a picture lasts 40 ms; prepare it with --speech raw,rate={48000 if rate == 16000 else rate}"
            )


def _of_pictures(side: int, samples: int) -> dict[str, Any]:
    return {"image_size": side, "audio_samples_per_frame": samples}


def _refuse_other_sizes(section: PerceiverSection, before: dict[str, Any], given: dict[str, Any]) -> None:
    for name, value in given.items():
        if name not in _OF_TRAINING and name in before and before[name] != value:
            raise MemofastError(
                f"model.init: {section.init} has {name} {before[name]}, the recipe {value}; give the same, or start "
                "from another checkpoint"
            )


def _refuse_other_media(where: str, config: PerceiverEmotionConfig, corpus: Corpus, side: int, samples: int) -> None:
    prepare = _PREPARE.format(config.picture_size, config.sample_rate)
    if config.picture_size != side:
        raise MemofastError(
            f"{where} reads pictures {config.picture_size} pixels wide, corpus {corpus.path} keeps them {side} wide; "
            f"prepare it with {prepare}"
        )
    if config.audio_samples_per_frame != samples:
        raise MemofastError(
            f"{where} hears sound at {config.sample_rate} Hz, corpus {corpus.path} keeps it at {25 * samples} Hz; "
            f"prepare it with {prepare}"
        )


def _refuse_short(train: Split, frames: int) -> None:
    """Every sample to learn from has pictures and sound, and a window of them."""
    columns = [MODALITIES.index(name) for name in FEATURES]
    for name, column in zip(("pictures", "sound"), columns, strict=True):
        if len(empty := np.flatnonzero(train.lengths[:, column] == 0)):
            raise MemofastError(
                f"sample {train.ids[empty[0]]!r} of split {train.name} of corpus {train.corpus.path} has no {name}, as "
                f"{len(empty)} in all; prepare it with --drop-missing, which leaves them out"
            )
    rows = train.lengths[:, columns].min(1)
    if len(short := np.flatnonzero(rows < frames)):
        raise MemofastError(
            f"sample {train.ids[short[0]]!r} of split {train.name} of corpus {train.corpus.path} "
            f"{problem_of(int(rows[short[0]]), frames)} ({len(short)} samples are so short)"
        )


def _labels_anew(
    section: PerceiverSection, before: dict[str, Any], config: PerceiverEmotionConfig, classes: Sequence[str]
) -> bool:
    """Whether the label's outputs begin anew."""
    names = before.get("id2label") or {str(n): f"LABEL_{n}" for n in range(before.get("num_labels", 2))}
    known = [names[str(number)] for number in range(len(names))]
    if known == list(classes) and before["label_head"] == config.label_head:
        return False
    if not section.replace_labels:
        what = f"names {len(known)} labels, this training {len(classes)} others"
        if known == list(classes):
            what = f"has a {before['label_head']} head for its labels, the recipe a {config.label_head} one"
        raise MemofastError(
            f"model.init: {section.init} {what}; add model.replace_labels=true to begin the label's outputs anew"
        )
    warnings.warn(
        f"model.init: the label's outputs begin anew: {len(classes)} classes by a {config.label_head} head, "
        f"{section.init} has {len(known)} by a {before['label_head']} one",
        MemofastWarning,
        stacklevel=3,
    )
    return True


def _check_memory(config: PerceiverEmotionConfig) -> None:
    with torch.device("meta"):
        check_memory(sum(weight.numel() for weight in PerceiverForEmotion(config).parameters()))


PERCEIVER = Family(
    name=PerceiverEmotionConfig.model_type,
    section=PerceiverSection,
    start=start,
    open=open_perceiver,
    capturable=lambda model, precision, device: False,  # windows are counted on the host
    export=export,
    compiled=False,  # for the same reason
)

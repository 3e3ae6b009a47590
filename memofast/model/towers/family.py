"""Towers as the rest of the package knows them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from memofast.data import Corpus, Split
from memofast.data.conversations import telling_of
from memofast.errors import MemofastError
from memofast.model.bounds import check_memory
from memofast.model.compatibility import has_words
from memofast.model.family import Family
from memofast.model.problems import PROBLEMS
from memofast.model.towers.adapting import adapt
from memofast.model.towers.configuration import TowersConfig
from memofast.model.towers.emotion import TowersForEmotion
from memofast.model.towers.encoders import entries_of, has_class_row, load_encoder, read_encoder
from memofast.model.towers.going_on import go_on
from memofast.model.towers.inputs import lines_on_inputs, pictures_of, sound_of
from memofast.model.towers.kept_features import KeptFeatures
from memofast.model.towers.opening import open_towers
from memofast.model.towers.section import TowerSection, TowersSection
from memofast.model.weights import stored_weights
from memofast.sections import Section
from memofast.store.feature_cache import open_cache


def start(
    section: TowersSection, kind: str, classes: Sequence[str], train: Split | None, prompt: Section | None = None
) -> TowersForEmotion:
    """The model that a fine-tuning starts from, see `family.Start`: encoders as in their folders, the rest random; or
    what another run has learnt.

    Raises: `MemofastError` for a prompt, without a corpus, for a folder without an encoder of its modality, and for a
        corpus that does not keep what it reads, or context that nothing reads, and as `go_on`.
    """
    if prompt is not None:
        raise MemofastError("model.family towers has no prompts, but context asks by a [MASK]; leave prompt out")
    if train is None:
        raise MemofastError("model.family towers begins with a corpus, of which text alone has none; choose memobert")
    corpus, telling = train.corpus, telling_of(train.corpus)
    asked = {
        "head_dropout_prob": section.head_dropout_prob,
        "context": telling.context.plain() if telling is not None else None,
        "mask_token_id": telling.mask if telling is not None else None,
        "problem_type": PROBLEMS[kind],
        "id2label": dict(enumerate(classes)),
        "label2id": {name: number for number, name in enumerate(classes)},
    }
    model = go_on(section, corpus, asked) if section.init else _begun(section, corpus, asked)
    if section.cache:
        cache = open_cache(Path(section.cache.path))
        for name, tower in model.towers.items():
            if tower.frozen:
                tower.entry = model.config.towers[name] = tower.entry | {"rounded": section.cache.dtype == "float16"}
                tower.kept = KeptFeatures(cache, tower, section.cache.dtype)
    return model


def _begun(section: TowersSection, corpus: Corpus, asked: dict[str, Any]) -> TowersForEmotion:
    """Encoders as in their folders, the rest random. asked: as of `go_on`."""
    given = section.towers
    if asked["context"] is not None and "text" not in given:
        raise MemofastError("context is read by model.text, which is not given; add model.text.init, or leave it out")
    configs = {name: read_encoder(name, Path(own.init)) for name, own in given.items()}
    entries = {name: _entry(name, own, configs[name], corpus) for name, own in given.items()}
    config = TowersConfig(entries, section.width, section.fusion.plain(), **asked)
    check_memory(sum(map(_trained_as, given.values())))
    encoders = {name: load_encoder(Path(own.init), configs[name]) for name, own in given.items()}
    if "visual" in given and given["visual"].pool is None:
        entries["visual"]["pool"] = "first" if has_class_row(encoders["visual"]) else "mean"
    model = TowersForEmotion(config, encoders)
    if loras := {name: own.lora for name, own in given.items() if own.lora}:
        adapt(model, loras, {name: Path(given[name].init) for name in loras})
    return model


def _entry(modality: str, section: TowerSection, config: PretrainedConfig, corpus: Corpus) -> dict[str, Any]:
    """Of `TowersConfig.towers`."""
    folder = Path(section.init)
    entry = {"encoder": entries_of(config), "train": section.train}
    if modality == "text":
        _check_text(folder, config, corpus)
        return entry
    entry["pool"] = section.pool or "mean"
    if modality == "visual":
        return entry | pictures_of(folder, config, corpus)
    return entry | sound_of(folder, config, corpus) | {"spec_augment": section.spec_augment}


def _check_text(folder: Path, config: PretrainedConfig, corpus: Corpus) -> None:
    if not has_words(corpus):
        raise MemofastError(
            f"corpus {corpus.path} has no words, which model.text reads; prepare it with --vocab {folder}, or leave "
            "model.text out"
        )


def _trained_as(section: TowerSection) -> int:
    """Parameters that a tower takes the memory of in training: fixed ones have neither gradients nor moments."""
    stored = sum(prod(weight.shape) for weight in stored_weights(Path(section.init)).values())
    return stored if section.train == "full" else stored // 4


def _notes(model: TowersForEmotion, corpus: Corpus) -> list[str]:
    return lines_on_inputs(model.config.towers, corpus)


TOWERS = Family(
    name=TowersConfig.model_type,
    section=TowersSection,
    start=start,
    open=open_towers,
    capturable=lambda model, precision, device: False,  # lengths of clips are read on the host
    notes=_notes,
    in_dialogues=("text",),
    compiled=False,  # every length of a clip would be traced anew
)

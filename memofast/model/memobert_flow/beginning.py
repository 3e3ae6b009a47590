"""The MemoBert-flow that a training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from memofast.data import Corpus, Split
from memofast.errors import MemofastError
from memofast.model.compatibility import check_widths
from memofast.model.face_networks.network import WIDTHS
from memofast.model.folder import in_one_line
from memofast.model.memobert import conversion
from memofast.model.memobert.adapting import adapt
from memofast.model.memobert.beginning import of_corpora, present
from memofast.model.memobert.section import PromptSection
from memofast.model.memobert.sizes import configuration
from memofast.model.memobert.starting import standardise, start_prompt
from memofast.model.memobert.starting_faces import begin_faces, face_entries
from memofast.model.memobert_flow.configuration import MemoBertFlowConfig
from memofast.model.memobert_flow.folder_config import read_config
from memofast.model.memobert_flow.models import (
    MemoBertFlowForEmotion,
    MemoBertFlowForPreTraining,
    MemoBertFlowForPrompt,
    MemoBertFlowModel,
    sizes_of_bert,
)
from memofast.model.memobert_flow.section import MemoBertFlowEmotionSection, MemoBertFlowSection
from memofast.model.memobert_flow.sound_networks import width_of
from memofast.model.memobert_flow.starting_sound import begin_sound, says_whether_to_normalise, sound_entries
from memofast.model.problems import PROBLEMS

_OF_BERT = ("text_layers",)  # of which fewer may be taken
_OF_TRAINING = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "emotion_head")
_NOT_SIZES = ("heads", "tables", "mask_token_id", "face", *_OF_TRAINING)


def sizes_of(init: str | None) -> dict[str, Any]:
    """What a starting checkpoint says of the configuration; nothing without one.

    Raises: `MemofastError` where it is missing, or neither a BERT nor a MemoBert-flow.
    """
    if init is None:
        return {}
    path = Path(init)
    if not path.is_dir():
        raise MemofastError(f"model.init: no checkpoint folder at {init}; give that of a BERT or a memobert-flow")
    found = read_config(path)
    if found.get("model_type") == "bert":
        return sizes_of_bert(conversion.read_bert(path).sizes)
    if found.get("model_type") != MemoBertFlowConfig.model_type:
        raise MemofastError(
            f"model.init: {init} holds a {found.get('model_type')!r} model; give a BERT or a memobert-flow, or leave "
            "it out"
        )
    return in_one_line(path, lambda: MemoBertFlowConfig(**found)).entries


def _is_flow(init: str | None) -> bool:
    return init is not None and read_config(Path(init)).get("model_type") == MemoBertFlowConfig.model_type


def configured(section: MemoBertFlowSection, corpora: Sequence[Corpus]) -> MemoBertFlowConfig:
    """As `family.PreTraining.configured`."""
    before = sizes_of(section.init)
    face = face_entries(section.face, before.get("face"), corpora)
    sound = sound_entries(section.sound, before.get("sound"), corpora)
    made = {"visual": WIDTHS[face["network"]]} if face else {}
    made |= {"speech": width_of(sound)} if sound else {}
    found = of_corpora(section, corpora, made)
    if sound and found["speech_width"]:
        found["speech_width"] = made["speech"]
    given = section.entries()
    entries = {**found, **before, **given, **present(found), "face": face, "sound": sound}
    config = configuration(entries, MemoBertFlowConfig)
    for name, size in before.items():
        free = (*_NOT_SIZES, *(() if _is_flow(section.init) else _OF_BERT))
        if name not in free and getattr(config, name) != size:
            other = "recipe" if name in given else "corpora"
            raise MemofastError(
                f"model.init: {section.init} has {name} {size}, the {other} {getattr(config, name)}; give the same, or "
                "start from another checkpoint"
            )
    return config


def begun(
    section: MemoBertFlowSection, config: MemoBertFlowConfig, splits: Sequence[Split]
) -> MemoBertFlowForPreTraining:
    """As `family.PreTraining.begun`."""
    if section.init is None:
        model = MemoBertFlowForPreTraining(config)
    elif _is_flow(section.init):
        model = MemoBertFlowForPreTraining.from_pretrained(Path(section.init), config=config, dtype=torch.float32)
    else:
        model = MemoBertFlowForPreTraining.from_bert(section.init, **config.entries)
    _begin_networks(model.memobert, section, splits)
    model.memobert.freeze(section.freeze)
    return model


def _begin_networks(encoder: MemoBertFlowModel, section: MemoBertFlowSection, splits: Sequence[Split]) -> None:
    before, config = sizes_of(section.init), encoder.config
    if config.face and not before.get("face"):
        begin_faces(encoder, section.face, splits, fresh=not before.get("visual_width"))
    if config.sound and not before.get("sound"):
        begin_sound(encoder, section.sound, splits)


def notes(section: MemoBertFlowSection, config: MemoBertFlowConfig) -> list[str]:
    """As `family.PreTraining.notes`."""
    before, said = sizes_of(section.init), []
    if section.init:
        networks = {"face": config.face, "sound": config.sound}
        missing = [name for name, entries in networks.items() if entries and not before.get(name)]
        for name in missing:
            own = getattr(section, name)
            said.append(f"{section.init} has no {name} network: it begins with {own.init or 'random weights'}")
    if section.sound and section.sound.init and not says_whether_to_normalise(Path(section.sound.init)):
        said.append(
            f"{section.sound.init} does not say whether its clips were normalised: they are, as transformers would"
        )
    for name in section.freeze:
        if _begins_at_random(name, section, config, before):
            said.append(f"model.freeze: the {name} encoder begins with random weights, which it keeps")
    return said


def _begins_at_random(
    modality: str, section: MemoBertFlowSection, config: MemoBertFlowConfig, before: dict[str, Any]
) -> bool:
    if modality == "text":
        return section.init is None
    name = {"visual": "face", "speech": "sound"}[modality]
    given = getattr(section, name)
    of_network = getattr(config, name) and not before.get(name) and not (given and given.init)
    of_layers = config.layers_of(modality) and not before.get(f"{modality}_width")
    return bool(of_network or of_layers)


def start(
    section: MemoBertFlowEmotionSection,
    kind: str,
    classes: Sequence[str],
    train: Split | None,
    prompt: PromptSection | None = None,
) -> MemoBertFlowForEmotion | MemoBertFlowForPrompt:
    """The emotion model that a fine-tuning starts from, see `family.Start`; fresh projections suit the rows of `train`.

    Raises: `MemofastError` for a checkpoint of another architecture, or whose rows are not the corpus's.
    """
    corpora = [train.corpus] if train is not None else []
    entries = {**configured(section, corpora).entries, "problem_type": PROBLEMS[kind], "emotion_head": section.head}
    entries["context"] = None  # of a starting checkpoint
    entries.pop("tables")
    if section.init is None:
        if prompt:
            raise MemofastError("a prompt starts from a pre-trained model; add model.init=FOLDER")
        named = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
        model = MemoBertFlowForEmotion(MemoBertFlowConfig(**entries, **named))
    elif prompt:
        del entries["problem_type"], entries["emotion_head"]
        vocabulary = entries["vocab_size"]
        model = start_prompt(MemoBertFlowForPrompt, prompt, section.init, classes, entries, vocabulary)
    else:
        model = MemoBertFlowForEmotion.start(section.init, classes, **entries)
    if train is not None:
        check_widths(model, section.init or "the model", train.corpus)
        if not _is_flow(section.init):
            standardise(model.memobert, train)
        _begin_networks(model.memobert, section, [train])
    if section.lora:
        adapt(model, section.lora, section.init)
    model.memobert.freeze(None if section.freeze == "all" else section.freeze)
    return model

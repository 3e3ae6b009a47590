"""The MemoBert that a pre-training starts from: its configuration for corpora, and its first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from memofast.data import Corpus, Split
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError
from memofast.model.face_networks.network import WIDTHS
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.pre_training import MemoBertForPreTraining
from memofast.model.memobert.section import MemoBertSection
from memofast.model.memobert.sizes import check_sizes, configuration, heads_of, sizes_of, tables_of
from memofast.model.memobert.starting_faces import begin_faces, face_entries

_CHOSEN = (
    "visual_width", "speech_width", "visual_positions", "speech_positions", "position_encoding", "projection_block",
    "shared_types", "face", "visual_classes", "heads", "tables", "mask_token_id", "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)  # fmt: skip


def configured(section: MemoBertSection, corpora: Sequence[Corpus]) -> MemoBertConfig:
    """As `family.PreTraining.configured`: the recipe's sizes, else the starting checkpoint's, else the default; feature
    widths and classes from the corpora."""
    init, heads = section.init, section.entries().get("num_attention_heads")
    before = sizes_of(init, heads)
    face = face_entries(section.face, before.get("face"), corpora)
    found = of_corpora(section, corpora, {"visual": WIDTHS[face["network"]]} if face else {})
    sizes = {"heads": heads_of(init, heads), "tables": tables_of(init, heads), **before}
    return configuration({**found, **sizes, **section.entries(), **present(found), "face": face})


def of_corpora(section: MemoBertSection, corpora: Sequence[Corpus], made: Mapping[str, int]) -> dict[str, Any]:
    """Feature widths, and classes of soft labels, of corpora that are read together. made: by modality the width of
    rows that a network makes of raw ones.

    Raises: `MemofastError` where corpora differ, for raw rows of which nothing makes rows, and where the recipe says
        otherwise.
    """
    found: dict[str, Any] = {}
    for modality in FEATURES:
        widths = {corpus.width(modality): corpus for corpus in corpora if corpus.width(modality)}
        if raw := _raw(modality, corpora):
            if modality not in made:
                raise MemofastError(
                    f"corpus {raw.path} has raw {modality}, of which model.family {section.family} makes no rows; "
                    "prepare rows, or read others of the corpus by corpora.N.features"
                )
            found[f"{modality}_width"] = made[modality]
            continue
        if len(widths) > 1:
            (one, first), (two, second) = list(widths.items())[:2]
            raise MemofastError(
                f"{modality} rows are {one} wide in corpus {first.path} and {two} wide in {second.path}; "
                "prepare them with the same extractor"
            )
        found[f"{modality}_width"] = next(iter(widths), 0)
    if labels := [corpus.classes["soft_labels"] for corpus in corpora if "soft_labels" in corpus.targets]:
        found["visual_classes"] = max(map(len, labels))
    given = section.entries()
    for name, value in found.items():
        if value and given.get(name, value) != value:
            raise MemofastError(f"model.{name} is {given[name]}, but the corpora have {value}; leave it out")
    return found


def _raw(modality: str, corpora: Sequence[Corpus]) -> Corpus | None:
    """A corpus with raw rows of a modality, where they are raw in all that have them. Raises: `MemofastError` where
    only some are."""
    having = [corpus for corpus in corpora if corpus.width(modality)]
    raw = [corpus for corpus in having if modality in corpus.raw]
    if raw and len(raw) < len(having):
        ready = next(corpus for corpus in having if corpus not in raw)
        raise MemofastError(
            f"{modality} rows are raw in corpus {raw[0].path} and ready in {ready.path}; prepare both alike"
        )
    return raw[0] if raw else None


def present(found: Mapping[str, Any]) -> dict[str, Any]:
    """What corpora have, and no width of 0."""
    return {name: value for name, value in found.items() if value}


def begun(section: MemoBertSection, config: MemoBertConfig, splits: Sequence[Split]) -> MemoBertForPreTraining:
    """As `family.PreTraining.begun`: random weights from torch's generator, or those of `model.init`.

    Raises: `MemofastError` where the checkpoint's sizes are not the recipe's.
    """
    before = sizes_of(section.init, section.entries().get("num_attention_heads"))
    model = _with_weights(section, config)
    if config.face and not before.get("face"):
        begin_faces(model.memobert, section.face, splits, fresh=not before.get("visual_width"))
    return model


def _with_weights(section: MemoBertSection, config: MemoBertConfig) -> MemoBertForPreTraining:
    if (init := section.init) is None:
        return MemoBertForPreTraining(config)
    check_sizes(init, config.to_dict(), may_begin=("face",))
    overrides = {name: value for name, value in config.to_dict().items() if name in _CHOSEN}
    if heads := section.entries().get("num_attention_heads"):
        overrides["num_attention_heads"] = heads  # of a file that does not say them
    if (foreign := MemoBertForPreTraining.from_foreign(init, **overrides)) is not None:
        return foreign
    return MemoBertForPreTraining.from_pretrained(Path(init), config=config, dtype=torch.float32)


def notes(section: MemoBertSection, config: MemoBertConfig) -> list[str]:
    """As `family.PreTraining.notes`."""
    if config.face and section.init and not sizes_of(section.init).get("face"):
        network = section.face.init or "random weights"
        return [f"{section.init} has no face network: it begins with {network}"]
    return []

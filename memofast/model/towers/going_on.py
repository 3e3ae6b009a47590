"""Trained towers as the beginning of a further training, with another corpus, other losses or other classes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from memofast.data import Corpus
from memofast.errors import MemofastError, MemofastWarning
from memofast.model.compatibility import check_widths
from memofast.model.folder import model_type
from memofast.model.towers.configuration import TowersConfig
from memofast.model.towers.emotion import TowersForEmotion
from memofast.model.towers.opening import open_towers
from memofast.model.towers.section import TowersSection


def go_on(section: TowersSection, corpus: Corpus, asked: dict[str, Any]) -> TowersForEmotion:
    """Towers, fusion and placeholders of the run that `section.init` names, with its map to the answers where that says
    the same classes in the same order. asked: entries of `TowersConfig` that the new training decides.

    Raises: `MemofastError` for a folder without towers, a corpus of other rows, and a width or fusion that are not the
        run's.
    """
    if (kind := model_type(Path(section.init))) != TowersConfig.model_type:
        raise MemofastError(f"model.init: {section.init} holds a {kind!r} model; give a finished run of towers")
    before = open_towers(Path(section.init))
    check_widths(before, section.init, corpus)
    if asked["context"] is not None and "text" not in before.towers:
        raise MemofastError(f"context is read by a tower of text, which model.init {section.init} lacks; leave it out")
    for name, own in (("width", section.width), ("fusion", section.fusion.plain())):
        if own != (found := getattr(before.config, name)):
            raise MemofastError(f"model.{name} is {own}, that of model.init {section.init} {found}; set it so")
    towers = {name: entry | {"train": getattr(section, name).train} for name, entry in before.config.towers.items()}
    model = TowersForEmotion(TowersConfig(towers, before.config.width, before.config.fusion, **asked))
    weights = before.state_dict()
    if tuple(before.outputs) != tuple(model.outputs):
        weights = {name: weight for name, weight in weights.items() if not name.startswith("classifier.")}
        told = f"names {', '.join(before.outputs)}, not {', '.join(model.outputs)}: the map to the answers begins anew"
        warnings.warn(f"model.init {section.init} {told}", MemofastWarning, stacklevel=2)
    model.load_state_dict(weights, strict=False)
    return model

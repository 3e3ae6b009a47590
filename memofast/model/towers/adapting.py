"""Low-rank adapters on the encoders of towers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from memofast.model.adapters.base import Base
from memofast.model.adapters.kept import Adaptation
from memofast.model.adapters.lora import adapted, linear_maps
from memofast.model.adapters.section import LoraSection

if TYPE_CHECKING:
    from memofast.model.towers.emotion import TowersForEmotion


def adapt(model: TowersForEmotion, sections: Mapping[str, LoraSection], bases: Mapping[str, Path]) -> None:
    """Put adapters on encoders, whose dropout draws as that of the encoders themselves; all else is trained as a whole.

    Args: sections: by modality. bases: where each of these encoders lies.
    Raises: `MemofastError` as `lora.adapted`.
    """
    of_bases = tuple(f"towers.{name}.encoder." for name in sections)
    whole = tuple(name for name in model.state_dict() if not name.startswith(of_bases))
    encoders = {}
    for name, section in sections.items():
        encoder = model.towers[name].encoder
        where, base = f"model.{name}.lora", Base.of(bases[name])
        encoders[name] = adapted(encoder, section, linear_maps(encoder), (), base, where)
    model.adapted = Adaptation(encoders, whole)

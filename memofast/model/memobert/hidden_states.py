"""The encoder of a checkpoint as it is asked for hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from memofast.model.memobert.pre_training import MemoBertModel


class MemoBertStates(MemoBertModel):
    """`MemoBertModel` as a `family.Encoder`."""

    @property
    def reads(self) -> Mapping[str, int]:
        return self.config.reads

    @property
    def streams(self) -> Mapping[str, str]:
        return {}

    @property
    def longest(self) -> Mapping[str, int]:
        return self.config.longest

    @property
    def width(self) -> int:
        return self.config.hidden_size


def open_encoder(folder: Path) -> MemoBertStates:
    """The encoder of any MemoBert checkpoint folder, in evaluation mode. Raises: `MemofastError` where there is
    none."""
    return MemoBertStates.from_pretrained(folder).eval()

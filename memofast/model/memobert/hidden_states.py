"""The encoder of a checkpoint as it is asked for hidden states."""

from __future__ import annotations

from pathlib import Path

from memofast.errors import MemofastError
from memofast.model.adapters.kept import holds_adapters
from memofast.model.memobert.emotion import open_emotion_model
from memofast.model.memobert.folder_config import read_config
from memofast.model.memobert.pre_training import MemoBertModel


class MemoBertStates(MemoBertModel):
    """`MemoBertModel` as a `family.Encoder`."""

    @property
    def width(self) -> int:
        return self.config.hidden_size


def open_encoder(folder: Path) -> MemoBertStates:
    """The encoder of any MemoBert checkpoint folder, or of a file of the original, in evaluation mode. Raises:
    `MemofastError` where there is none, or one that reads utterances in their dialogues."""
    if folder.is_file():
        return MemoBertStates.from_original(folder)
    if read_config(folder).get("context"):
        raise MemofastError(
            f"{folder} reads utterances in their dialogues, hidden states are of texts alone; give what it began from"
        )
    if holds_adapters(folder):
        opened = open_emotion_model(folder).memobert
        states = MemoBertStates(opened.config)
        states.load_state_dict(opened.state_dict())
        return states.eval()
    return MemoBertStates.from_pretrained(folder).eval()

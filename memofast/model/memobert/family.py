"""MemoBert as the rest of the package knows it."""

import torch

from memofast.data.modality import MODALITIES
from memofast.model.family import EmotionModel, Family, PreTraining
from memofast.model.memobert.beginning import begun, configured, notes
from memofast.model.memobert.capturing import can_be_captured
from memofast.model.memobert.converting import to_file
from memofast.model.memobert.emotion import open_emotion_model
from memofast.model.memobert.export import write_program
from memofast.model.memobert.hidden_states import open_encoder
from memofast.model.memobert.pre_training import MemoBertForPreTraining
from memofast.model.memobert.prompt import MemoBertForPrompt
from memofast.model.memobert.section import MemoBertEmotionSection, MemoBertSection
from memofast.model.memobert.starting import start


def _capturable(model: EmotionModel, precision: str, device: torch.device) -> bool:
    """The rows of a prompt, and of an utterance's own words, are counted on the host, which a capture forbids."""
    counted = isinstance(model, MemoBertForPrompt) or (model.context is not None and model.context.pool == "words")
    return not counted and can_be_captured(model.config, precision, device)


MEMOBERT = Family(
    name="memobert",
    section=MemoBertEmotionSection,
    start=start,
    open=open_emotion_model,
    capturable=_capturable,
    pre_training=PreTraining(MemoBertSection, MemoBertForPreTraining, configured, begun, notes, can_be_captured),
    open_encoder=open_encoder,
    export=write_program,
    to_file=to_file,
    in_dialogues=MODALITIES,
)

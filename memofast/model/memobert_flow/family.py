"""MemoBert-flow as the rest of the package knows it."""

import torch

from memofast.model.family import EmotionModel, Family, PreTraining
from memofast.model.memobert.capturing import can_be_captured
from memofast.model.memobert_flow.beginning import begun, configured, notes, start
from memofast.model.memobert_flow.models import (
    MemoBertFlowForPreTraining,
    MemoBertFlowForPrompt,
    open_emotion_model,
    open_encoder,
)
from memofast.model.memobert_flow.padded import export
from memofast.model.memobert_flow.section import MemoBertFlowEmotionSection, MemoBertFlowSection


def _capturable(model: EmotionModel, precision: str, device: torch.device) -> bool:
    """A prompt's rows are counted on the host, which a capture forbids."""
    return not isinstance(model, MemoBertFlowForPrompt) and can_be_captured(model.config, precision, device)


MEMOBERT_FLOW = Family(
    name="memobert-flow",
    section=MemoBertFlowEmotionSection,
    start=start,
    open=open_emotion_model,
    capturable=_capturable,
    pre_training=PreTraining(
        MemoBertFlowSection, MemoBertFlowForPreTraining, configured, begun, notes, can_be_captured
    ),
    open_encoder=open_encoder,
    export=export,
)

"""MemoBert-flow: an encoder for each of text, faces and speech, and a cross encoder over the rows of all three."""

from memofast.model.memobert_flow.configuration import MemoBertFlowConfig
from memofast.model.memobert_flow.models import (
    MemoBertFlowForEmotion,
    MemoBertFlowForPreTraining,
    MemoBertFlowForPrompt,
    MemoBertFlowModel,
)

__all__ = [
    "MemoBertFlowConfig",
    "MemoBertFlowForEmotion",
    "MemoBertFlowForPreTraining",
    "MemoBertFlowForPrompt",
    "MemoBertFlowModel",
]

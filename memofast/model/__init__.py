"""Configuration, embeddings, encoder, heads and whole models."""

from memofast.model.configuration import MemoBertConfig, padded_width
from memofast.model.emotion import MemoBertForEmotion
from memofast.model.memobert import MemoBertForPreTraining, MemoBertModel, MemoBertOutput
from memofast.model.prompt import MemoBertForPrompt, Prompt

__all__ = [
    "MemoBertConfig",
    "MemoBertForEmotion",
    "MemoBertForPreTraining",
    "MemoBertForPrompt",
    "MemoBertModel",
    "MemoBertOutput",
    "Prompt",
    "padded_width",
]

"""Configuration, embeddings, encoder, heads and whole models."""

from memofast.model.memobert.configuration import MemoBertConfig, padded_width
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.pre_training import MemoBertForPreTraining, MemoBertModel, MemoBertOutput
from memofast.model.memobert.prompt import MemoBertForPrompt, Prompt

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

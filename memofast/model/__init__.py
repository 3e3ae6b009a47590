"""Configuration, embeddings, encoder, heads and whole models."""

from memofast.model.configuration import MemoBertConfig, padded_width
from memofast.model.memobert import MemoBertForPreTraining, MemoBertModel, MemoBertOutput

__all__ = ["MemoBertConfig", "MemoBertForPreTraining", "MemoBertModel", "MemoBertOutput", "padded_width"]

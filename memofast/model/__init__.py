"""Configuration, embeddings, encoder, heads and whole models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """The classes, and transformers with them, only where they are asked for: workers that make rows of faces need a
    network of this package and start in a third of the time."""
    if name in __all__:
        return getattr(import_module("memofast.model.memobert"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

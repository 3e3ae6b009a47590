"""Networks over rows of text, face and speech side by side, as MOSI, MOSEI and SIMS are answered: recurrent, tensor,
memory and cross-modal fusion."""

from memofast.model.sequence.configuration import SequenceConfig
from memofast.model.sequence.emotion import SequenceForEmotion

__all__ = ["SequenceConfig", "SequenceForEmotion"]

"""The multimodal Perceiver: pictures and sound of a clip to its emotion, exact and without a row of its inputs made."""

from memofast.model.perceiver.configuration import PerceiverEmotionConfig
from memofast.model.perceiver.emotion import PerceiverForEmotion
from memofast.model.perceiver.folder import open_perceiver
from memofast.model.perceiver.network import PerceiverNetwork, patches_of

__all__ = ["PerceiverEmotionConfig", "PerceiverForEmotion", "PerceiverNetwork", "open_perceiver", "patches_of"]

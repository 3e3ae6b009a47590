"""Late fusion of LSTMs: one over the rows of each feature modality or stream, their ends joined."""

from memofast.model.lstm_fusion.configuration import LstmFusionConfig
from memofast.model.lstm_fusion.emotion import LstmFusionForEmotion

__all__ = ["LstmFusionConfig", "LstmFusionForEmotion"]

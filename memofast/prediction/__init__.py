"""From a trained emotion model to what it says of texts, sounds, videos and features."""

from memofast.prediction.predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "load"]

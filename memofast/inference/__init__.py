"""From a trained emotion model to what it says of texts, sounds, videos and features."""

from memofast.inference.predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "load"]

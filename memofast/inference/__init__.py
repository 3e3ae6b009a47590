"""From a trained emotion model to what it says of texts, sounds, videos and features."""

from memofast.inference.prediction import Prediction
from memofast.inference.predictor import Predictor, load

__all__ = ["Prediction", "Predictor", "load"]

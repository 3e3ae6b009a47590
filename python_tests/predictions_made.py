"""Predictions that tests make up."""

import numpy as np

from memofast.metrics.predictions import Predictions

CLASSES = ("neutral", "joy", "anger", "sadness")


def single(samples=200, seed=0, skill=2.0, classes=CLASSES, prefix="s", frequent=0.4, unknown=0) -> Predictions:
    """Class 0 is the commonest; the greater the skill, the more often the truth is named. The last `unknown` samples
    have no truth."""
    rng = np.random.default_rng(seed)
    share = np.array([frequent, *[(1 - frequent) / (len(classes) - 1)] * (len(classes) - 1)])
    truth = np.random.default_rng(99).choice(len(classes), samples, p=share)
    logits = rng.normal(size=(samples, len(classes))) + skill * np.eye(len(classes))[truth]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if unknown:
        truth[-unknown:] = -1
    return Predictions("single", ids(samples, prefix), truth, scores.astype(np.float32), tuple(classes))


def named(truth, predicted, classes=CLASSES, prefix="s") -> Predictions:
    """The predicted classes, each with probability 1."""
    scores = np.eye(len(classes), dtype=np.float32)[np.asarray(predicted, int)]
    return Predictions("single", ids(len(scores), prefix), np.asarray(truth, np.int64), scores, tuple(classes))


def multi(samples=150, seed=0, classes=CLASSES) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = (np.random.default_rng(98).random((samples, len(classes))) < 0.3).astype(np.float32)
    scores = np.clip(0.5 * truth + 0.7 * rng.random(truth.shape), 0, 1).astype(np.float32)
    return Predictions("multi", ids(samples), truth, scores, tuple(classes))


def regression(samples=150, seed=0, noise=1.0) -> Predictions:
    """Sentiment from -3 to 3 in steps of .2, as in MOSI, with zeros."""
    truth = np.random.default_rng(97).integers(-15, 16, samples).astype(np.float32) / 5
    values = 0.8 * truth + noise * np.random.default_rng(seed).normal(size=samples)
    return Predictions("regression", ids(samples), truth, values.astype(np.float32))


def ids(samples: int, prefix: str = "s") -> tuple[str, ...]:
    return tuple(f"{prefix}{number:04}" for number in range(samples))

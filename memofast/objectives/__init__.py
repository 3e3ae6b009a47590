"""What is trained: masked modelling of words, faces and speech, their order, their match, and contrast."""

from memofast.objectives.assignment import (
    assign,
    chosen_by,
    eligible,
    padding_of,
    places_of,
    rows_shown,
    validation_rng,
    views_for,
    views_of,
)
from memofast.objectives.build import KINDS, build
from memofast.objectives.learner import Learner
from memofast.objectives.objective import LossSum, Objective, Room
from memofast.objectives.statistics import Statistics

__all__ = [
    "KINDS",
    "Learner",
    "LossSum",
    "Objective",
    "Room",
    "Statistics",
    "assign",
    "build",
    "chosen_by",
    "eligible",
    "padding_of",
    "places_of",
    "rows_shown",
    "validation_rng",
    "views_for",
    "views_of",
]

"""What is trained: masked modelling of words, faces and speech."""

from memofast.objectives.build import KINDS, build
from memofast.objectives.corruption import Corruption, assign, corrupt, validation_rng
from memofast.objectives.losses import losses
from memofast.objectives.objective import Inputs, LossSum, Objective, Targets
from memofast.objectives.trivial import Trivial

__all__ = [
    "KINDS",
    "Corruption",
    "Inputs",
    "LossSum",
    "Objective",
    "Targets",
    "Trivial",
    "assign",
    "build",
    "corrupt",
    "losses",
    "validation_rng",
]

"""Objectives by name and options, as a recipe gives them."""

from __future__ import annotations

import re
from typing import Any, Protocol

from torch import nn

from memofast.errors import MemofastError, nearest
from memofast.objectives.contrast import ViewContrast
from memofast.objectives.emotional import EmotionalEmotion, EmotionalRegression
from memofast.objectives.face_emotions import VisualEmotion
from memofast.objectives.features import SpeechRegression, VisualRegression
from memofast.objectives.matching import Matching
from memofast.objectives.objective import Objective
from memofast.objectives.order import SpeechOrder, VisualOrder
from memofast.objectives.words import MaskedWords
from memofast.sections import checked, shown

KINDS: dict[str, type[Objective]] = {
    "whole_word_mlm": MaskedWords,
    "span_visual_regression": VisualRegression,
    "span_visual_emotion": VisualEmotion,
    "span_speech_regression": SpeechRegression,
    "emotional_visual_regression": EmotionalRegression,
    "emotional_visual_emotion": EmotionalEmotion,
    "visual_order": VisualOrder,
    "speech_order": SpeechOrder,
    "matching": Matching,
    "view_contrast": ViewContrast,
}


class Vocabulary(Protocol):
    """What objectives ask of a model's words: how many there are, and which stands for a masked one."""

    vocab_size: int
    mask_token_id: int


def build(options: dict[str, dict[str, Any] | None], vocabulary: Vocabulary | None = None) -> dict[str, Objective]:
    """The objectives of a recipe, by name.

    Args:
        options: per objective its options, see the class of its kind. The name says what it is, or `kind` does (one of
        `KINDS`), so that one kind may be used twice. Ratios and probabilities may be written 0.15, "3/20" or [3, 20].
        vocabulary: of the model, as its configuration has it; None: BERT's.
    Raises: `MemofastError` for an unknown objective, option or value.
    """
    return {name: _objective(name, dict(given or {}), vocabulary) for name, given in options.items()}


def _objective(name: str, given: dict[str, Any], vocabulary: Vocabulary | None) -> Objective:
    if not re.fullmatch(r"[\w-]{1,100}", name) or hasattr(nn.ModuleDict, name):
        raise MemofastError(
            f"objectives: {shown(name)} cannot be the name of an objective, which is of letters, digits, _ and -; "
            "choose another one and name its kind, as objectives.words={kind: whole_word_mlm}"
        )
    kind = given.pop("kind", name)
    if not isinstance(kind, str) or kind not in KINDS:
        raise MemofastError(f"objectives.{name}: unknown objective {shown(kind)}{nearest(str(kind), KINDS)}")
    objective = KINDS[kind]
    options = checked(given, f"objectives.{name}", objective.Options)
    try:
        if objective is MaskedWords and vocabulary is not None:
            built = MaskedWords(name, options, vocabulary.vocab_size, vocabulary.mask_token_id)
        else:
            built = objective(name, options)
        built.check_shows()
        return built
    except (ValueError, TypeError) as error:
        raise MemofastError(f"objectives.{name}: {error}") from None

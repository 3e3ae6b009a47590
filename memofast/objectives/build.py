"""Objectives by name and options, as a recipe gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from memofast.errors import MemofastError, nearest
from memofast.objectives.autoencoding import MaskedAutoencoder
from memofast.objectives.contrast import ViewContrast
from memofast.objectives.emotional import EmotionalEmotion, EmotionalRegression
from memofast.objectives.face_emotions import VisualEmotion
from memofast.objectives.features import SpeechRegression, VisualRegression
from memofast.objectives.frame_contrast import SpeechContrast, VisualContrast
from memofast.objectives.lare import Lare
from memofast.objectives.matching import Matching
from memofast.objectives.naming import Language, Naming, Vocabulary
from memofast.objectives.objective import Objective
from memofast.objectives.order import SpeechOrder, VisualOrder
from memofast.objectives.prompted import Prompted
from memofast.objectives.prompts import LabelPrompt
from memofast.objectives.sentence_prompts import SentencePrompt
from memofast.objectives.tuple_contrast import TupleContrast
from memofast.objectives.utterance_emotion import UtteranceEmotion
from memofast.objectives.words import MaskedWords
from memofast.sections import checked, shown

KINDS: dict[str, type[Objective]] = {
    "whole_word_mlm": MaskedWords,
    "span_visual_regression": VisualRegression,
    "span_visual_emotion": VisualEmotion,
    "span_speech_regression": SpeechRegression,
    "span_visual_contrast": VisualContrast,
    "span_speech_contrast": SpeechContrast,
    "emotional_visual_regression": EmotionalRegression,
    "emotional_visual_emotion": EmotionalEmotion,
    "visual_order": VisualOrder,
    "speech_order": SpeechOrder,
    "matching": Matching,
    "view_contrast": ViewContrast,
    "tuple_contrast": TupleContrast,
    "utterance_emotion": UtteranceEmotion,
    "label_prompt": LabelPrompt,
    "sentence_prompt": SentencePrompt,
    "lare": Lare,
    "masked_autoencoder": MaskedAutoencoder,
}


def _no_language() -> None:
    """Of corpora that carry no vocabulary."""


def build(
    options: dict[str, dict[str, Any] | None],
    vocabulary: Vocabulary | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    language: Callable[[], Language | None] | None = None,
) -> dict[str, Objective]:
    """The objectives of a recipe, by name.

    Args:
        options: per objective its options, see the class of its kind. The name says what it is, or `kind` does (one of
        `KINDS`), so that one kind may be used twice. Ratios and probabilities may be written 0.15, "3/20" or [3, 20].
        vocabulary: of the model, as its configuration has it; None: BERT's. classes: names by target, of the corpora;
        None: not known. language: gives the tokenizer of the corpora's words, see `Naming`; None: not known.
    Raises: `MemofastError` for an unknown objective, option or value.
    """
    return {name: _objective(name, dict(given or {}), vocabulary, classes, language) for name, given in options.items()}


def _objective(
    name: str,
    given: dict[str, Any],
    vocabulary: Vocabulary | None,
    classes: Mapping[str, Sequence[str]] | None,
    language: Callable[[], Language | None] | None,
) -> Objective:
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
        if objective.of_words and vocabulary is not None:
            built = objective(name, options, vocabulary.vocab_size, vocabulary.mask_token_id)
        elif objective is MaskedAutoencoder:
            built = MaskedAutoencoder(name, options, vocabulary)
        elif objective is UtteranceEmotion:
            built = UtteranceEmotion(name, options, classes)
        elif issubclass(objective, Prompted):
            named = [*options.words] if classes is None else classes.get(options.labels, ())
            built = objective(name, options, vocabulary, Naming(named, language or _no_language))
        else:
            built = objective(name, options)
        built.check_shows()
        return built
    except (ValueError, TypeError) as error:
        raise MemofastError(f"objectives.{name}: {error}") from None

"""Objectives by name and options, as a recipe gives them."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from memofast import ops
from memofast.errors import MemofastError, nearest
from memofast.objectives.features import SpeechRegression, VisualEmotion, VisualRegression
from memofast.objectives.objective import Objective
from memofast.objectives.words import MaskedWords

if TYPE_CHECKING:
    from memofast.model import MemoBertConfig

KINDS: dict[str, type[Objective]] = {
    "whole_word_mlm": MaskedWords,
    "span_visual_regression": VisualRegression,
    "span_visual_emotion": VisualEmotion,
    "span_speech_regression": SpeechRegression,
}
_RATIOS = ("ratio", "probability", "emotion_probability")
_SPEECH_RATIO = (3, 20)
_LONGEST_MIXED_SPAN = {"visual": 5, "speech": 6}


def build(options: dict[str, dict[str, Any] | None], config: MemoBertConfig | None = None) -> dict[str, Objective]:
    """The objectives of a recipe, by name.

    Args:
        options: per objective its options. The name says what it is, or `kind` does (one of `KINDS`), so that one kind may be used
            twice. `policy` is a kind of `ops.TokenPolicy` or `ops.SpanPolicy` (`token`, `independent`, ...), every other option a field
            of that policy; ratios and probabilities may be written 0.15, "3/20" or [3, 20].
        config: the model's configuration, from which the mask token and the range of random pieces follow.
    Raises: `MemofastError` for an unknown objective, option or value.
    """
    return {name: _objective(name, dict(given or {}), config) for name, given in options.items()}


def _objective(name: str, given: dict[str, Any], config: MemoBertConfig | None) -> Objective:
    kind = given.pop("kind", name)
    if kind not in KINDS:
        raise MemofastError(f"objectives.{name}: unknown objective {kind!r}{nearest(kind, KINDS)}")
    objective = KINDS[kind]
    policy = ops.TokenPolicy if objective is MaskedWords else ops.SpanPolicy
    known = {"policy", *(f.name for f in fields(policy))} - {"kind"}
    for option in given:
        if option not in known:
            raise MemofastError(f"objectives.{name}: unknown option {option!r}{nearest(option, known)}")
    chosen = {"kind": given.pop("policy")} if "policy" in given else {}
    defaults = _word_defaults(config) if objective is MaskedWords else _span_defaults(objective.modality, chosen)
    values = {option: _ratio(name, option, value) if option in _RATIOS else value for option, value in given.items()}
    try:
        return objective(name, policy(**{**defaults, **chosen, **values}))
    except (ValueError, TypeError) as error:
        raise MemofastError(f"objectives.{name}: {error}") from None


def _word_defaults(config: MemoBertConfig | None) -> dict[str, Any]:
    """Random pieces come from the ordinary words: BERT's vocabulary begins them at 999, a smaller one after its mask token."""
    if config is None:
        return {}
    low = 999 if config.vocab_size > 1998 else config.mask_token_id + 1
    return {"mask_id": config.mask_token_id, "random_low": low, "random_high": config.vocab_size}


def _span_defaults(modality: str, chosen: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    independent = chosen.get("kind") == "independent"
    if modality == "speech" or independent:
        defaults["ratio"] = _SPEECH_RATIO
    if chosen.get("kind") == "mixed":
        defaults["length"] = _LONGEST_MIXED_SPAN[modality]
    return defaults


def _ratio(name: str, option: str, value: Any) -> tuple[int, int]:
    try:
        if isinstance(value, (list, tuple)):
            numerator, denominator = value
            return int(numerator), int(denominator)
        fraction = Fraction(str(value)).limit_denominator(1000)
    except (ValueError, TypeError, ZeroDivisionError):
        raise MemofastError(
            f'objectives.{name}: {option} {value!r} is no ratio; write 0.15, "3/20" or [3, 20]'
        ) from None
    return fraction.numerator, fraction.denominator

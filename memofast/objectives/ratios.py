"""Ratios and probabilities in a recipe: 0.15, "3/20" or [3, 20], kept as integers so that no rounding can differ."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator


def _ratio(value: Any) -> tuple[int, int]:
    try:
        if isinstance(value, (list, tuple)):
            numerator, denominator = value
            return int(numerator), int(denominator)
        fraction = Fraction(str(value)).limit_denominator(1000)
    except (ValueError, TypeError, ZeroDivisionError):
        raise ValueError('is no ratio; write 0.15, "3/20" or [3, 20]') from None
    return fraction.numerator, fraction.denominator


Ratio = Annotated[tuple[int, int], BeforeValidator(_ratio)]

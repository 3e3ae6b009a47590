"""Ratios and probabilities in a recipe: 0.15, "3/20" or [3, 20], kept as integers so that no rounding can differ."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from memofast.ops.row_lists import RATIO_LIMIT


def _ratio(value: Any) -> tuple[int, int]:
    try:
        if isinstance(value, (list, tuple)):
            numerator, denominator = value
            if any(type(part) is not int for part in value):
                raise TypeError
            exact = Fraction(numerator, denominator)
        else:
            text = str(value)
            exact = Fraction(
                text if "/" in text else str(float(text))
            )  # of 1e-999999999 it would write out every digit
            numerator, denominator = exact.limit_denominator(RATIO_LIMIT).as_integer_ratio()
    except (ValueError, TypeError, ZeroDivisionError):
        raise ValueError('is no ratio; write 0.15, "3/20" or [3, 20]') from None
    if not 0 <= exact <= 1 or denominator < 0:
        raise ValueError("must be at least 0 and at most 1")
    if denominator > RATIO_LIMIT or (exact and not numerator):
        raise ValueError(f"must be a ratio of integers up to {RATIO_LIMIT}")
    return numerator, denominator


_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "string", "pattern": "^[0-9]+/[0-9]+$"},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2},
    ]
}
Ratio = Annotated[tuple[int, int], BeforeValidator(_ratio), WithJsonSchema(_SCHEMA)]

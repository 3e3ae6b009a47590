"""Where an answer stands among classes that have an order, such as sentiments from negative to positive.

Source: the score of the MELD system's estimator, (1 - E[class] / 3) * 100 of four classes from the best to the worst.
"""

from collections.abc import Mapping, Sequence

from memofast.errors import MemofastError


def ordered_score(probabilities: Mapping[str, float], ordered: Sequence[str]) -> float:
    """The mean place among the ordered classes, by their probabilities: from 0, surely the first, to 100, surely the
    last. ordered: every class, see `check_order`."""
    total = sum(probabilities[name] for name in ordered)
    return 100 * sum(place * probabilities[name] for place, name in enumerate(ordered)) / (len(ordered) - 1) / total


def check_order(ordered: Sequence[str], classes: Sequence[str], kind: str) -> None:
    """Raises: `MemofastError` for an order that is not of all classes of a model, each once, and for a model that does
    not name one class of several. kind: of its target."""
    if kind != "single":
        raise MemofastError(f"classes in order are for a model that names one of several; this one's target is {kind}")
    if len(classes) < 2 or sorted(ordered) != sorted(classes):
        raise MemofastError(
            f"classes in order {', '.join(ordered)} are not those of the model; give each of {', '.join(classes)} "
            "once, from the lowest to the highest"
        )

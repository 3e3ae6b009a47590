"""Weights of the originals under their own names."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor


def renamed(state: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """A state under our names. names: regular expression of a whole name and its replacement, the first that fits
    counts; an empty replacement leaves the entry out.

    Raises: `ValueError` for a name that none fits.
    """
    found = {}
    for name, values in state.items():
        pattern, own = next(((p, r) for p, r in names if re.fullmatch(p, name)), (None, ""))
        if pattern is None:
            raise ValueError(f"{name} is no parameter of this network's original")
        if own:
            found[re.sub(pattern, own, name)] = values
    return found

"""Figures of matplotlib with names that others chose: files, classes, corpora."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from memofast.errors import MemofastWarning


@contextmanager
def named_figures(**settings: object) -> Iterator[None]:
    """Settings of matplotlib, under which a `$` in a name is that letter and begins no formula. Letters that no font
    here has become boxes, and one `MemofastWarning` names them."""
    import matplotlib

    lacking: dict[str, None] = {}
    with matplotlib.rc_context({"text.parse_math": False, **settings}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for told in caught:
        if letter := re.match(r"Glyph (\d+) \(", str(told.message)):
            lacking[chr(int(letter[1]))] = None
        else:
            warnings.warn_explicit(told.message, told.category, told.filename, told.lineno)
    if lacking:
        letters = "".join(lacking)
        warnings.warn(f"no font for {letters} in pictures; boxes stand there", MemofastWarning, stacklevel=3)

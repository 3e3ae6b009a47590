"""What goes wrong, told in one line."""

import difflib
from collections.abc import Iterable


class MemofastError(Exception):
    """A user's mistake or a broken input: one line that says what, where and what to do. Commands exit with code 2."""


class MemofastWarning(UserWarning):
    """What is done all the same and should be known; commands print it as a note of one line, once."""


class DeviceError(RuntimeError):
    """A GPU, or the compiler of its kernels, failed in an operator: one line with operator, tensors, device and what to
    do."""


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint for a message: the name most like `word`, or all there are."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; there are {', '.join(prefix + key for key in known)}"

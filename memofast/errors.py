"""What goes wrong, told in one line."""

import difflib
import re
from collections.abc import Iterable

_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class MemofastError(Exception):
    """A user's mistake or a broken input: one line that says what, where and what to do. Commands exit with code 2.

    Control characters and ends of lines, as names of files may hold them, are escaped.
    """

    def __init__(self, message: str):
        super().__init__(_BREAKS.sub(lambda found: ascii(found[0])[1:-1], str(message)))


class MemofastWarning(UserWarning):
    """What is done all the same and should be known; commands print it as a note of one line, once."""


class DeviceError(RuntimeError):
    """A GPU, or the compiler of its kernels, failed in an operator: one line with operator, tensors, device and what to
    do."""


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint for a message: the name most like `word`, or all there are."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; there are {', '.join(prefix + key for key in known)}"

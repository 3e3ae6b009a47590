"""Pickles of others, read without running what they ask for: numpy arrays and plain Python values, nothing else.

An ordinary unpickler calls whatever a file names. This one knows a fixed list of classes and functions and refuses all
others by name.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from memofast.errors import MemofastError


def _latin1(text: str, encoding: str) -> bytes:
    """How old protocols write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


_NUMPY = {  # as numpy's own pickles name them, in old and new versions
    ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("multiarray", "scalar"): np.float32(0).__reduce__()[0],
    ("numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
}
_KNOWN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{(f"numpy.{core}.{m}", name): f for core in ("core", "_core") for (m, name), f in _NUMPY.items()},
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (bytearray, complex, frozenset, list, dict, set, tuple, str, int, float, bool)
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, and only numpy arrays and plain values are read"
            )
        return _KNOWN[module, name]


def read_pickle(path: Path) -> Any:
    """The contents of a pickle of numpy arrays, numbers, strings, lists and dicts.

    Raises: `MemofastError` for a missing or damaged file, and for one that names any other class or function.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise MemofastError(f"{path} cannot be read ({error.strerror}); check the path") from None
    except pickle.UnpicklingError as error:
        raise MemofastError(f"{path} is refused: {error}") from None
    except (
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        RecursionError,
    ) as error:
        raise MemofastError(f"{path} is damaged or no pickle ({type(error).__name__}: {error})") from None

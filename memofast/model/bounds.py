"""Bounds of the sizes that a recipe gives a model, so that a slip is told before anything is allocated for it."""

from typing import Annotated

from pydantic import AfterValidator, Field

from memofast.cpu import memory
from memofast.errors import MemofastError

_LANES = 65536  # that dropout draws of, see `ops.philox.drop_threshold`
_BYTES = 16  # of a parameter in training: weight, gradient, two moments of AdamW, fp32

Layers = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Rows = Annotated[int, Field(ge=2, le=2**14)]  # those of three modalities are positions of attention, below 2^16
Words = Annotated[int, Field(ge=5, le=2**20)]


def _drops_something(p: float) -> float:
    if 0 < p < 1 / _LANES:
        raise ValueError(f"is 0 or at least {1 / _LANES:.2g}, as it is drawn no finer")
    return p


Dropout = Annotated[float, Field(ge=0, le=0.99), AfterValidator(_drops_something)]


def check_memory(parameters: int) -> None:
    """Raises: `MemofastError` where a model of so many parameters cannot be trained in this machine's memory."""
    if (needed := parameters * _BYTES) > memory():
        raise MemofastError(
            f"model: {parameters:,} parameters take {needed / 1e9:,.1f} GB with gradients and optimiser, this machine "
            f"has {memory() / 1e9:,.1f} GB; lower its sizes, such as model.vocab_size or model.hidden_size"
        )

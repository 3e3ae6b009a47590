"""Heads that objectives ask a model to own, whatever family it is of."""

from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("words", "rows", "soft_labels", "classes", "table", "pooled_classes", "pooled", "hidden")


@dataclass(frozen=True)
class Head:
    """What an objective reads a forward pass through.

    kind: `words`: logits over word pieces; `rows`: a feature row of `modality`, in its true width; `soft_labels`:
    logits over the classes of the soft labels of `modality`; `classes`: logits over `outputs` classes of a row;
    `table`: logits over the `outputs` entries of the input table of the head's name, see `View.tables`; `pooled`: of a
    sample's pooled first row, logits over `outputs` classes, or with 0 outputs the pooled row itself; `pooled_classes`:
    logits over `outputs` classes of that row by way of a layer twice as wide; `hidden`: the row as it is.
    """

    kind: str
    modality: str = ""
    outputs: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"a head is of kind {', '.join(KINDS)}, not {self.kind!r}")

    def described(self) -> dict[str, Any]:
        """Plain values for a `config.json`, from which `Head(**values)` makes it again."""
        return asdict(self)

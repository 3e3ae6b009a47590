"""A store whose batches have what lies around each utterance in its dialogue."""

from __future__ import annotations

import numpy as np

from memofast.store import Store


class StoreInDialogues(Store):
    """Another store with context: the same records, of which `read` gives the utterance's own; lengths and `gather` are
    those of what is read with it. cut: samples of which less is read around them than is asked for, as their rows end.
    """

    cut: int

    def __init__(self, store: Store):
        self.store = store
        for name in ("path", "meta", "complete", "columns", "classes", "ids"):
            setattr(self, name, getattr(store, name))

    def __reduce__(self):
        raise TypeError("a store with context is made where it is read")

    def read(self, id: str) -> dict[str, np.ndarray]:
        return self.store.read(id)
